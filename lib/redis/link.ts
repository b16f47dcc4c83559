import type { RedisArgument, RedisConnection, RedisPort, RedisReply } from '../../types/redis.ts'
import { asError } from '../error-utils.ts'
import { RedisAnswerError } from './answer-error.ts'
import type { Script } from './script.ts'
import { probeScript } from './script.ts'
import { checkServer } from './server-check.ts'

/** Milliseconds for a connection with all that it takes: the handshake, the check of the server, the subscriptions. */
const connectTimeout = 5_000
/** Milliseconds for an answer that no publication waits for. */
const callTimeout = 5_000
/** Bounds of the pause before another attempt, which doubles and is drawn at random, so that nodes do not come back together. */
const leastPause = 100
const mostPause = 1_500

/** Errors of a server that cannot be used now, and has not executed the command. */
const passing = new Set(['LOADING', 'BUSY', 'ASK', 'MASTERDOWN', 'CLUSTERDOWN', 'TRYAGAIN', 'NOREPLICAS', 'UNKILLABLE'])
/** Errors of a server that is no longer the one to ask. */
const misplaced = new Set(['READONLY', 'MOVED'])

/** The side of the broker. The functions do not throw. */
export interface LinkEvents {
  /** Bytes of a channel of topics. */
  message (channel: string, bytes: Buffer): void
  /** Bytes of another node on a channel of nodes. */
  control (bytes: Buffer): void
  /** Both connections are there. Subscribes again and reads what is missing; rejects if that fails. */
  recover (link: Link): Promise<void>
  /** The state or its cause has changed. */
  changed (): void
}

export interface LinkSettings {
  readonly port: RedisPort
  readonly shard: string
  readonly heartbeat: number
  /** Channels of this node besides those of topics. Probes come back on the first one. */
  readonly channels: readonly string[]
  /** The key that probes write. */
  readonly probeKey: string
  /** It takes the place of another link: its first connection is one that was made again. */
  readonly isAgain?: boolean
}

/** The two connections to one server, for commands and for subscriptions: made, probed, and made again together. */
export class Link {
  state: 'up' | 'degraded' | 'down' = 'down'
  cause: Error | undefined
  /** Connections that were made again. */
  reconnects = 0
  /** The run of the server, which ends when that is started again; empty if it is not known. */
  serverRun = ''
  /** Probes that have not come back in time. */
  missedProbes = 0
  readonly #settings: LinkSettings
  readonly #events: LinkEvents
  #commands: RedisConnection | undefined
  #subscriptions: RedisConnection | undefined
  /** Changes with each attempt: what an older one brings is ignored. */
  #attempt = {}
  #failures = 0
  #timer: NodeJS.Timeout | undefined
  #probe: { readonly text: string, readonly sentAt: number, readonly returned: () => void } | undefined
  /** Milliseconds that the latest probe took to come back. */
  #lag = 0
  #wasUp: boolean
  #probes = 0
  /** The server can be used, and is not set up as it should be. */
  #warning: Error | undefined
  #isClosed = false

  constructor (settings: LinkSettings, events: LinkEvents) {
    this.#settings = settings
    this.#events = events
    this.#wasUp = settings.isAgain === true
  }

  /** Milliseconds that the latest probe took to come back, or that a later one has been under way, if that is longer. */
  get lag (): number { return this.#probe === undefined ? this.#lag : Math.max(this.#lag, performance.now() - this.#probe.sentAt) }

  /** Whether commands are sent. It is `true` while the node recovers, when the state is not yet up. */
  get isOpen (): boolean { return this.#commands !== undefined }

  /** Whether the node has recovered: publications may be sent. */
  get isReady (): boolean { return this.state !== 'down' }

  /** Settles when the first attempt has ended, however. */
  async start (): Promise<void> {
    await this.#connect()
  }

  /** Sends commands in one write. */
  send (commands: readonly (readonly RedisArgument[])[]): Promise<RedisReply>[] {
    const connection = this.#commands
    if (connection === undefined) return commands.map(() => Promise.reject(this.cause ?? new Error('there is no connection to Redis')))
    return connection.send(commands).map(answer => answer.catch((error: unknown) => { throw this.#noted(asError(error)) }))
  }

  /** Runs scripts, sent in one write. A server that does not know one is sent its source. */
  run (script: Script, calls: readonly { readonly keys: readonly string[], readonly args: readonly RedisArgument[] }[]): Promise<RedisReply>[] {
    const answers = this.send(calls.map(({ keys, args }) => ['EVALSHA', script.sha, String(keys.length), ...keys, ...args]))
    return answers.map((answer, i) => answer.catch((error: unknown) => {
      if (!(error instanceof RedisAnswerError) || error.word !== 'NOSCRIPT') throw error
      const { keys, args } = calls[i]!
      return this.send([['EVAL', script.source, String(keys.length), ...keys, ...args]])[0]!
    }))
  }

  /** Runs a script that no publication waits for. @throws if there is no answer within 5 s */
  call (script: Script, keys: readonly string[], args: readonly RedisArgument[]): Promise<RedisReply> {
    return within(this.run(script, [{ keys, args }])[0]!, callTimeout)
  }

  async subscribe (channels: readonly string[]): Promise<void> {
    if (this.#subscriptions === undefined) throw this.cause ?? new Error('there is no connection to Redis')
    try {
      await within(this.#subscriptions.subscribe(channels), callTimeout)
    } catch (error) {
      throw this.#noted(asError(error))
    }
  }

  async unsubscribe (channels: readonly string[]): Promise<void> {
    if (this.#subscriptions !== undefined) await within(this.#subscriptions.unsubscribe(channels), callTimeout)
  }

  /** Closes both connections, and connects again after a pause. */
  fault (cause: Error): void {
    if (this.#isClosed || (this.state === 'down' && this.#commands === undefined)) return
    this.#drop()
    this.#set('down', cause)
    this.#again()
  }

  /** Notes that the server does not do as it should, and is there. */
  complain (cause: Error): void {
    if (this.state === 'up') this.#set('degraded', cause)
  }

  close (): void {
    this.#isClosed = true
    this.#drop()
  }

  async #connect (): Promise<void> {
    const attempt = this.#attempt = {}
    const isStale = (): boolean => this.#attempt !== attempt
    const { port, shard, channels } = this.#settings
    const opened: RedisConnection[] = []
    const open = async (message: (channel: string, bytes: Buffer) => void): Promise<RedisConnection> => {
      const connection = await port.connect(shard, {
        message,
        closed: error => { if (!isStale()) this.fault(error) },
        moved: () => { if (!isStale()) this.fault(new Error('a slot has moved to another server')) }
      })
      opened.push(connection)
      // A connection that comes too late must not stay open.
      if (isStale()) connection.close()
      return connection
    }
    const establish = async (): Promise<{ warning: Error | undefined, refusal: Error | undefined }> => {
      const [commands, subscriptions] = await Promise.all([
        open(() => {}),
        open((channel, bytes) => { if (!isStale()) this.#receive(channel, bytes) })
      ])
      if (isStale()) throw new Error('the broker has closed')
      this.#commands = commands
      this.#subscriptions = subscriptions
      const { warning, run } = await checkServer(commands)
      if (!isStale()) this.serverRun = run
      for (const channel of channels) await subscriptions.subscribe([channel])
      return { warning, refusal: await this.#sendProbe() }
    }
    try {
      const { warning, refusal } = await within(establish(), connectTimeout)
      this.#warning = warning
      await this.#events.recover(this)
      if (isStale()) return
      this.#failures = 0
      if (this.#wasUp) this.reconnects++
      this.#wasUp = true
      this.#set(refusal === undefined ? 'up' : 'degraded', refusal ?? warning)
      this.#schedule()
    } catch (error) {
      for (const connection of opened) connection.close()
      if (isStale()) return
      this.#drop()
      this.#set('down', asError(error))
      this.#again()
    }
  }

  #drop (): void {
    this.#attempt = {}
    clearTimeout(this.#timer)
    this.#probe = undefined
    const connections = [this.#commands, this.#subscriptions]
    this.#commands = this.#subscriptions = undefined
    for (const connection of connections) connection?.close()
  }

  #again (): void {
    // The broker may have closed it when it was told that it is down.
    if (this.#isClosed) return
    const most = Math.min(mostPause, leastPause * 2 ** this.#failures++)
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => { this.#connect().catch(() => {}) }, Math.random() * most)
  }

  #receive (channel: string, bytes: Buffer): void {
    if (!this.#settings.channels.includes(channel)) this.#events.message(channel, bytes)
    else if (bytes[0] !== 0x70) this.#events.control(bytes)
    else if (this.#probe?.text === bytes.toString('latin1')) {
      const { returned, sentAt } = this.#probe
      this.#lag = performance.now() - sentAt
      this.#probe = undefined
      returned()
    }
  }

  /**
   * Settles when a probe has come back through the subscriptions, and the server has answered. Resolves with its error if it has refused to write.
   * @throws the error of a server that is a replica
   */
  async #sendProbe (): Promise<Error | undefined> {
    const { probeKey, port, channels } = this.#settings
    const text = `p${++this.#probes}`
    const back = new Promise<void>(resolve => { this.#probe = { text, sentAt: performance.now(), returned: resolve } })
    const written = String(await this.run(probeScript, [{ keys: [probeKey], args: [channels[0]!, port.isCluster ? 'SPUBLISH' : 'PUBLISH', text] }])[0]!)
    if (written === 'OK') {
      await back
      return undefined
    }
    const error = this.#noted(new RedisAnswerError(written))
    if (misplaced.has((error as RedisAnswerError).word)) throw error
    await back
    return error
  }

  #schedule (): void {
    const { heartbeat } = this.#settings
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      const attempt = this.#attempt
      this.#sendProbe().then(refusal => {
        if (refusal !== undefined) this.complain(refusal)
        else if (this.#attempt === attempt && this.state === 'degraded') this.#set('up', this.#warning)
      }, (error: unknown) => {
        // A server that answers with an error has not gone. It has sent no probe, and gets another chance.
        if (this.#attempt !== attempt || !(error instanceof RedisAnswerError)) return
        this.#probe = undefined
        this.complain(error)
      })
      this.#timer = setTimeout(() => {
        // After a stall of the event loop the probe may wait to be read.
        setImmediate(() => {
          if (this.#attempt !== attempt) return
          if (this.#probe === undefined) this.#schedule()
          else {
            this.missedProbes++
            this.fault(new Error(`Redis has not answered a probe within ${heartbeat} ms`))
          }
        })
      }, heartbeat)
      this.#timer.unref()
    }, 0)
    this.#timer.unref()
  }

  /** Draws the consequence from an error of the server. */
  #noted (error: Error): Error {
    if (!(error instanceof RedisAnswerError)) return error
    if (misplaced.has(error.word)) this.fault(error)
    else if (passing.has(error.word) || error.word === 'OOM') this.complain(error)
    return error
  }

  #set (state: Link['state'], cause: Error | undefined): void {
    this.state = state
    this.cause = cause
    this.#events.changed()
  }
}

/** Whether the server has not executed a command, and may do so if it is sent again. */
export function isPassing (error: unknown): boolean {
  return error instanceof RedisAnswerError && (passing.has(error.word) || misplaced.has(error.word))
}

function within<T> (answer: Promise<T>, milliseconds: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => { reject(new Error(`Redis has not answered within ${milliseconds} ms`)) }, milliseconds)
    answer.then(resolve, reject).finally(() => { clearTimeout(timer) })
  })
}
