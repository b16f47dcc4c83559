import type { FrameRun } from './transport.ts'
import { unpooled } from './ws/frame.ts'

/** A transport that holds its frames back until the turn ends. */
export interface GatheringTransport {
  writeGathered (): void
}

/** Frames in one piece, for one peer alone. */
export class OwnFrames implements FrameRun {
  readonly whole: Buffer
  constructor (whole: Buffer) { this.whole = whole }
  get frames (): Buffer[] { return [this.whole] }
  get unpooled (): Buffer { return unpooled(this.whole) }
}

/** The frames that one peer gets in one turn. Peers that get the same runs in the same order share the object, so that their bytes are joined once. */
export class Gathered {
  /** Bytes of all runs. */
  readonly bytes: number
  readonly #before: Gathered | undefined
  readonly run: FrameRun
  /** The object that the last peer went on to. A room writes to all its members in a row, so the next peer mostly goes on to the same. */
  #next: Gathered | undefined
  #whole: Buffer | undefined
  #unpooled: Buffer | undefined

  constructor (before: Gathered | undefined, run: FrameRun) {
    this.#before = before
    this.run = run
    this.bytes = (before?.bytes ?? 0) + run.whole.length
  }

  /** The same frames and one more run. */
  with (run: FrameRun): Gathered {
    if (this.#next?.run !== run) this.#next = new Gathered(this, run)
    return this.#next
  }

  /** All frames, one behind the other. */
  get whole (): Buffer {
    this.#whole ??= this.#before === undefined ? this.run.whole : Buffer.concat(this.#runs().map(run => run.whole), this.bytes)
    return this.#whole
  }

  /** The same in memory of their own, for peers that buffer them. */
  get unpooled (): Buffer {
    this.#unpooled ??= this.#before === undefined ? this.run.unpooled : unpooled(this.whole)
    return this.#unpooled
  }

  #runs (): FrameRun[] {
    const runs: FrameRun[] = []
    for (let at: Gathered | undefined = this; at !== undefined; at = at.#before) runs.push(at.run)
    return runs.reverse()
  }
}

/** The frames that connections of several topics get in this turn. Each connection gets them in one write, though several of its rooms have something to send. */
export class GatheredWrites {
  readonly #mark: () => void
  #transports: GatheringTransport[] = []
  #first: Gathered | undefined

  /** @param mark - lets the turn end soon */
  constructor (mark: () => void) {
    this.#mark = mark
  }

  /** Begins with the first run of a transport in this turn. */
  begin (transport: GatheringTransport, run: FrameRun): Gathered {
    this.#transports.push(transport)
    this.#mark()
    if (this.#first?.run !== run) this.#first = new Gathered(undefined, run)
    return this.#first
  }

  /** Writes all of them. */
  write (): void {
    if (this.#transports.length === 0) return
    const transports = this.#transports
    this.#transports = []
    this.#first = undefined
    for (const transport of transports) transport.writeGathered()
  }
}
