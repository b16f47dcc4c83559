import { shaped } from './peer.ts'

/** Valid frames of a member. */
function memberFrames (session: string, draw: () => number): object[] {
  return [
    { type: 'message', data: { text: 'hi', list: [1, 2, { three: 3 }] } },
    { type: 'message', data: Math.floor(draw() * 100), key: 'k' },
    { type: 'direct', to: session, data: 'psst' },
    { type: 'direct', to: 'user:nobody', data: 'psst' },
    { type: 'ack', data: 'yes' },
    { type: 'presence', info: { name: 'Ada' } },
    { type: 'presence' },
    { type: 'ping' }
  ]
}

/** Valid frames of a client with several topics: some join, leave and name topics, which exist or not. */
export function topicFrames (_session: string, draw: () => number): object[] {
  const names = ['attacked', 'attacked', 'calm', 'calm', 'calm', '__proto__', 'a"b', 'é', '..', 'x'.repeat(255), 'y'.repeat(300)]
  const topic = names[Math.floor(draw() * names.length)]!
  const joins = [{}, { since: '0' }, { since: 'latest', presence: true }, { presence: false }, { since: 'never' }].map(more => ({ type: 'join', topic, ...more }))
  const frames = memberFrames('nobody', draw).map(({ type, ...rest }: { type?: string }) => type === 'ping' ? { type } : { type, topic, ...rest })
  return [...joins, ...joins, ...frames, ...frames, { type: 'leave', topic }, { type: 'leave', topic }]
}

/** Frames with mistakes of JSON, structure and bytes. Equal random numbers give equal frames. */
export class Mutations {
  readonly #random: () => number
  readonly #frames: (session: string, draw: () => number) => object[]

  /** @param frames - makes valid frames, one of which is mutated */
  constructor (random: () => number, frames: (session: string, draw: () => number) => object[] = memberFrames) {
    this.#random = random
    this.#frames = frames
  }

  /** Bytes of one frame, or of several if it is fragmented. @param session - the sender's own */
  next (session: string): Buffer {
    const text = this.#chance(0.15) ? this.#frame(session) : this.#chance(0.7) ? this.#restructured(this.#frame(session)) : this.#garbled(this.#frame(session))
    const payload = this.#chance(0.06) ? this.#scrambled(Buffer.from(text)) : Buffer.from(text)
    const bytes = this.#framed(payload)
    return this.#chance(0.06) ? this.#scrambled(bytes) : bytes
  }

  #chance (odds: number): boolean { return this.#random() < odds }
  #below (count: number): number { return Math.floor(this.#random() * count) }
  #pick<T> (list: readonly T[]): T { return list[this.#below(list.length)]! }

  /** A valid frame. */
  #frame (session: string): string {
    const ref = this.#pick([undefined, this.#below(1_000), `r${this.#below(1_000)}`])
    return JSON.stringify({ ...this.#pick(this.#frames(session, this.#random)), ref })
  }

  /** JSON of an unusual value. */
  #value (): string {
    return this.#pick([
      () => 'null', () => 'true', () => '""', () => '0', () => '-0', () => '1e400', () => '1.5', () => '9007199254740992', () => '[]', () => '{}', () => '[null]',
      () => '"\\ud800"', () => '"\u2028"', () => '"\u0000"', () => JSON.stringify('x'.repeat(this.#pick([64, 65, 2_000]))),
      () => '['.repeat(50) + ']'.repeat(50), () => '{"__proto__":1}', () => '{"constructor":{"prototype":1}}', () => '{"constructor":1}', () => `"${'\u{1f600}'.repeat(this.#below(40))}"`,
      () => JSON.stringify('y'.repeat(this.#pick([66_000, 100_000])))
    ])()
  }

  /** Other properties and values; usually still JSON. */
  #restructured (text: string): string {
    const members = Object.entries(JSON.parse(text) as object).map(([name, value]) => [JSON.stringify(name), JSON.stringify(value)] as [string, string])
    for (let changes = 1 + this.#below(2); changes > 0; changes--) {
      const member = members[this.#below(members.length)]
      const name = this.#pick(['"type"', '"ref"', '"data"', '"to"', '"info"', '"key"', '"topic"', '"presence"', '"__proto__"', '"constructor"', '"toString"', '""', '"\\u0074ype"'])
      this.#pick([
        () => { if (member !== undefined) member[1] = this.#value() },
        () => { if (member !== undefined) member[0] = name },
        () => { members.push([name, this.#value()]) },
        () => { members.splice(this.#below(members.length), 1) },
        () => { if (member !== undefined) members.push([member[0], this.#value()]) },
        () => { members.reverse() }
      ])()
    }
    const space = this.#pick(['', '', ' ', '\n\t', '\u00a0'])
    const object = `${space}{${members.map(([name, value]) => `${name}${space}:${value}`).join(`${space},`)}}`
    return this.#pick([object, object, object, object, object, `[${object}]`, object + object, `\uFEFF${object}`, `${object},`, JSON.stringify(object)])
  }

  /** Characters removed, doubled and changed. */
  #garbled (text: string): string {
    const at = this.#below(text.length)
    return this.#pick([
      () => text.slice(0, at),
      () => text.slice(at),
      () => text.slice(0, at) + text.slice(at + 1),
      () => text.slice(0, at) + this.#pick(['"', '{', '}', ',', ':', '\\', '\u0000', 'e', '-', '\ud83d', '/**/']) + text.slice(at),
      () => text.slice(0, at) + text.slice(at - 5),
      () => ''
    ])()
  }

  /** The payload as one frame, or as several. */
  #framed (payload: Buffer): Buffer {
    const mask = Buffer.from([0, 0, 0, 0].map(() => this.#below(256)))
    const frame = (part: Buffer | string, shape = {}): Buffer => shaped(part, { mask, ...shape })
    const at = this.#below(payload.length)
    const reason = Buffer.concat([Buffer.of(this.#below(20), this.#below(256)), Buffer.from(this.#pick(['', 'bye', '\u20ac']))])
    return this.#pick([
      // Most violations of RFC 6455 end the connection, and the server reads nothing behind them.
      ...Array.from({ length: 60 }, () => () => frame(payload)),
      () => Buffer.concat([frame(payload.subarray(0, at), { fin: false }), frame(payload.subarray(at), { opcode: 0 })]),
      () => Buffer.concat([frame(payload.subarray(0, at), { fin: false }), frame('p', { opcode: 9 }), frame(payload.subarray(at), { opcode: 0 })]),
      () => frame(payload, { opcode: this.#below(16) }),
      () => frame(payload, { fin: false }),
      () => frame(payload, { rsv: this.#below(8) }),
      () => frame(payload, { opcode: 2 }),
      () => frame(payload.subarray(0, 125), { opcode: this.#pick([9, 10]) }),
      () => frame(this.#pick([Buffer.alloc(0), Buffer.of(3), reason, reason]), { opcode: 8 }),
      () => frame(payload, { form: payload.length > 65_535 ? 8 : this.#pick([2, 8] as const) }),
      () => frame(payload, { length: this.#pick([0, 125, 126, 70_000, 131_072, 131_073, 2 ** 40, 1n << 63n]) })
    ])()
  }

  /** Bytes removed, doubled and changed. */
  #scrambled (bytes: Buffer): Buffer {
    const at = this.#below(bytes.length)
    // The first bytes of a frame determine its kind.
    const early = this.#below(Math.min(bytes.length, 14))
    const flipped = (place: number): Buffer => {
      const copy = Buffer.from(bytes)
      if (copy.length > 0) copy[place]! ^= 1 << this.#below(8)
      return copy
    }
    return this.#pick([
      () => flipped(at),
      () => flipped(early),
      () => flipped(early),
      () => Buffer.concat([bytes.subarray(0, at), Buffer.of(this.#below(256)), bytes.subarray(at)]),
      () => Buffer.concat([bytes.subarray(0, early), bytes.subarray(early + 1)]),
      () => bytes.subarray(0, at),
      () => Buffer.concat([bytes, bytes.subarray(at)])
    ])()
  }
}
