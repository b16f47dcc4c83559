import { createRequire } from 'node:module'
import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { addressKey } from '../lib/limits/address-key.ts'
import { compressedFrame, payloadOf, textFrame } from '../lib/transport/ws/frame.ts'
import { credit, draw, level, type Bucket } from '../lib/limits/token-bucket.ts'
import { payloadCompiler, schemaCompiler } from '../lib/topics/payload.ts'
import { closeBehaviour, closeCodes, closeName, isSendable } from '../lib/protocol/close-codes.ts'
import * as frames from '../lib/protocol/server-frames.ts'
import { modes, negotiate } from '../lib/protocol/subprotocols.ts'
import { checkFrame } from '../lib/protocol/client-frames.ts'
import { formatPosition, parsePosition, sincePattern } from '../lib/protocol/position.ts'
import { isTopicName } from '../lib/protocol/topic-name.ts'
import { TopicRegistry } from '../lib/topics/registry.ts'

/** Cases of each property. A failure prints its seed and the smallest case; FC_SEED repeats one. */
const seed = process.env['FC_SEED']
fc.configureGlobal({ numRuns: 1_000, ...(seed === undefined ? {} : { seed: Number(seed) }) })

/** Asserts that a property holds; a failure names the counterexample. */
function holds<T extends [unknown, ...unknown[]]> (t: Test, property: fc.IProperty<T>, parameters: fc.Parameters<T> = {}): void {
  const details = fc.check(property, parameters)
  t.notOk(details.failed, fc.defaultReportMessage(details) ?? `${details.numRuns} cases`)
}

/** Objects that resemble frames. */
const nearly = fc.record({
  type: fc.oneof({ weight: 9, arbitrary: fc.constantFrom('message', 'direct', 'ack', 'ping', 'presence', 'auth', 'hello', 'constructor', '__proto__') }, fc.jsonValue()),
  ref: fc.oneof({ weight: 4, arbitrary: fc.string({ maxLength: 70 }) }, fc.double(), { weight: 4, arbitrary: fc.maxSafeInteger() }, fc.jsonValue()),
  data: fc.jsonValue(),
  to: fc.oneof(fc.constantFrom('', 'user:', 'user:u'), fc.string(), fc.jsonValue()),
  key: fc.oneof(fc.string({ maxLength: 300 }), fc.jsonValue()),
  token: fc.oneof(fc.string(), fc.jsonValue()),
  info: fc.jsonValue()
}, { requiredKeys: [] })

t.test('a parsed frame that is taken has the documented shape, and a refused one has a reason', async t => {
  const seen = { taken: 0, refused: 0 }
  holds(t, fc.property(fc.oneof({ weight: 4, arbitrary: nearly }, fc.jsonValue(), fc.anything()), value => {
    const before = fc.stringify(value)
    const frame = checkFrame(value) as any
    if (fc.stringify(value) !== before) return false // parsing does not change the frame
    if ('fault' in frame && frame !== value) {
      seen.refused++
      const mayRepeat = frame.ref === undefined || frame.ref === (value as any).ref
      return typeof frame.fault === 'string' && frame.fault.length > 0 && frame.fault.length < 300 && mayRepeat && !isProper(value)
    }
    seen.taken++
    return frame === value && isProper(value)
  }), { numRuns: 5_000 })
  t.ok(seen.taken > 100 && seen.refused > 100, `${seen.taken} were taken, ${seen.refused} refused`)
})

/** "Client → server" of docs/protocol.md as code. */
function isProper (value: any): boolean {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  const { type, ref, data, to, key, token } = value
  const isString = (text: unknown, most: number): boolean => typeof text === 'string' && text.length > 0 && text.length <= most
  if (ref !== undefined && !isString(ref, 64) && !Number.isSafeInteger(ref)) return false
  switch (type) {
    case 'message': return data !== undefined && (key === undefined || isString(key, 255))
    case 'direct': return data !== undefined && isString(to, Infinity) && to !== 'user:'
    case 'ack': return ref !== undefined
    case 'auth': return isString(token, 8_192)
    default: return type === 'ping' || type === 'presence'
  }
}

t.test('frames that the server writes are JSON with the given values', async t => {
  const id = fc.record({ epoch: fc.stringMatching(/^[0-9a-f]{16}$/), offset: fc.nat() })
  const optional = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(arbitrary, { nil: undefined })
  const text = fc.string({ unit: 'binary' })
  const lacks = (value: object): object => Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined))
  holds(t, fc.property(fc.jsonValue(), optional(id), optional(fc.uuid()), optional(text), (data, position, from, user) => {
    const at = position === undefined ? undefined : formatPosition(position)
    const json = JSON.stringify(data)
    const message = JSON.parse(frames.messageHead(at) + frames.tailStart + json + frames.tailEnd(from, user))
    const direct = JSON.parse(frames.direct(json, from, user))
    return isDeepStrictEqual(message, JSON.parse(JSON.stringify(lacks({ type: 'message', id: at, data, from, user })))) &&
      isDeepStrictEqual(direct, JSON.parse(JSON.stringify(lacks({ type: 'direct', data, from, user }))))
  }))
})

t.test('a text frame has the shortest length header, and ws reads it back unchanged', async t => {
  // The receiver of ws is not exported, but most servers and clients use it, so it is the reference here.
  const { resolve } = createRequire(import.meta.url)
  const { default: Receiver } = await import(resolve('ws').replace(/index\.js$/, 'lib/receiver.js'))
  const read = (bytes: Buffer): string[] => {
    const messages: string[] = []
    const receiver = new Receiver({ allowSynchronousEvents: true })
    receiver.on('message', (data: Buffer, isBinary: boolean) => { messages.push(isBinary ? 'binary' : data.toString()) })
    receiver.on('error', (error: Error) => { messages.push(String(error)) })
    receiver.write(bytes)
    return messages
  }
  const text = fc.oneof(
    fc.string({ unit: 'grapheme' }),
    // Lengths around the bounds of the header forms, with characters of one to four bytes.
    fc.tuple(fc.constantFrom('a', 'ä', '€', '😀'), fc.constantFrom(120, 125, 126, 130, 65_530, 65_535, 65_536), fc.nat({ max: 6 })).map(([character, length, more]) => character.repeat(Math.floor(length / Buffer.byteLength(character))) + 'b'.repeat(more))
  )
  const shortest = (frame: Buffer, length: number): boolean => frame.length - length === (length < 126 ? 2 : length < 65_536 ? 4 : 10)
  holds(t, fc.property(fc.array(text, { minLength: 1, maxLength: 4 }), fc.stringMatching(/^[a-z]{0,20}$/), (texts, head) => {
    const whole = texts.map(text => textFrame(text))
    const parts = texts.map(text => textFrame(head, Buffer.from(text)))
    return isDeepStrictEqual(read(Buffer.concat(whole)), texts) &&
      isDeepStrictEqual(read(Buffer.concat(parts)), texts.map(text => head + text)) &&
      whole.every((frame, index) => shortest(frame, Buffer.byteLength(texts[index]!)) && payloadOf(frame).toString() === texts[index]) &&
      texts.every(text => payloadOf(compressedFrame(Buffer.from(text))).toString() === text && compressedFrame(Buffer.from(text))[0] === 0xc1)
  }), { numRuns: 200 })
})

t.test('the range of a close code determines the client\'s behaviour, for every number', async t => {
  holds(t, fc.property(fc.oneof(fc.integer({ min: 900, max: 5_100 }), fc.integer(), fc.double()), code => {
    const behaviour = closeBehaviour(code)
    const range = Math.floor(code / 100)
    const known = { 40: 'stop', 41: 'backoff', 43: 'renew' }[range]
    // Codes that a server may send in a close frame (RFC 6455 7.4).
    const sendable = Number.isInteger(code) && ((code >= 3000 && code < 5000) || (code >= 1000 && code <= 1014 && ![1004, 1005, 1006, 1010].includes(code)))
    return (known === undefined ? behaviour === 'stop' || behaviour === 'resume' : behaviour === known) &&
      isSendable(code) === sendable && closeName(code) === ((closeCodes as Record<number, string>)[code] ?? '')
  }), { numRuns: 5_000 })
})

t.test('a position survives being written and read, and matches the accepted form of since', async t => {
  const pattern = new RegExp(sincePattern)
  holds(t, fc.property(fc.stringMatching(/^[A-Za-z0-9]{11,64}$/), fc.integer({ min: 0, max: 999_999_999_999_999 }), (epoch, offset) => {
    const id = formatPosition({ epoch, offset })
    return pattern.test(id) && isDeepStrictEqual(parsePosition(id), { epoch, offset })
  }))
  holds(t, fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[A-Za-z0-9-]{0,80}$/), fc.constantFrom('0', 'latest', '0\n', 'latest-1')), id => {
    if (!pattern.test(id)) return true
    const position = parsePosition(id)
    return position === null ? id === '0' || id === 'latest' : Number.isSafeInteger(position.offset) && position.offset >= 0 && position.epoch.length >= 11
  }))
})

t.test('the first known mode of an offer is selected, with any other entries beside it', async t => {
  const entry = fc.oneof(fc.constantFrom('rooms.v1', 'rooms.raw', 'ROOMS.V1', 'rooms.v2', '', 'bearer.abc', 'rooms.v1x'), fc.string().map(text => text.replaceAll(',', '')))
  const space = fc.constantFrom('', ' ', '  ', '\t')
  holds(t, fc.property(fc.array(fc.tuple(space, entry, space)), entries => {
    const offer = entries.map(parts => parts.join('')).join(',')
    const first = entries.map(parts => parts.join('').trim()).find(name => name === 'rooms.v1' || name === 'rooms.raw') ?? null
    return negotiate(offer) === first && negotiate(undefined) === modes[0]
  }))
})

t.test('a topic resolves to its exact name, else to its family, else to nothing; no string throws', async t => {
  const part = fc.constantFrom('a', 'b', 'ab', 'a:', 'a:b', 'a:b:', 'b.', '~', '_-', '')
  const name = fc.tuple(part, part, part).map(parts => parts.join(''))
  const key = fc.oneof(name, name.map(stem => `${stem}*`), fc.constantFrom('*', '.', '..', 'a*b', 'a/b', 'ä', '__proto__', 'constructor'))
  const compile = payloadCompiler(schemaCompiler({}), {})
  const wellFormed = (text: string): boolean => text.length >= 1 && text.length <= 255 && text !== '.' && text !== '..' && [...text].every(character => /[A-Za-z0-9_.:~-]/.test(character))
  const seen = { built: 0, refused: 0, found: 0 }
  holds(t, fc.property(fc.uniqueArray(key, { maxLength: 6 }), fc.array(fc.oneof(name, fc.string(), fc.anything(), fc.constantFrom('__proto__', 'constructor', 'toString', 'hasOwnProperty')), { maxLength: 10 }), (keys, asked) => {
    const families = keys.filter(key => key.endsWith('*')).map(key => key.slice(0, -1))
    const overlap = families.some((one, index) => families.some((other, place) => place !== index && one.startsWith(other)))
    const sound = keys.every(key => wellFormed(key.endsWith('*') ? `${key.slice(0, -1)}x` : key))
    let registry: TopicRegistry
    try {
      registry = new TopicRegistry(Object.fromEntries(keys.map(key => [key, {}])), compile, { limits: { payload: 1_000, messages: 1, per: 1, topicLength: 255 }, slow: { policy: 'close', bytes: 1 }, history: false })
      seen.built++
    } catch (error) {
      seen.refused++
      return (error as { code?: string }).code === 'FST_ROOMS_INVALID_TOPIC_OPTION' && (overlap || !sound)
    }
    if (overlap || !sound) return false
    return [...keys, ...asked].every(topic => {
      const exact = keys.find(key => key === topic && !key.endsWith('*'))
      const family = typeof topic === 'string' && wellFormed(topic) ? keys.find(key => key.endsWith('*') && topic.startsWith(key.slice(0, -1)) && topic.length >= key.length) : undefined
      const found = registry.find(topic)?.key
      if (found !== undefined) seen.found++
      return found === (exact ?? family)
    })
  }))
  t.ok(seen.built > 100 && seen.refused > 100 && seen.found > 100, JSON.stringify(seen))
  holds(t, fc.property(fc.oneof(fc.anything(), fc.string(), fc.stringMatching(/^[A-Za-z0-9_.:~-]{0,260}$/)), value => isTopicName(value) === (typeof value === 'string' && wellFormed(value))))
})

t.test('an address has one key in all its spellings, and no text throws', async t => {
  holds(t, fc.property(fc.ipV4(), fc.boolean(), (address, direct) => {
    const key = addressKey(address, direct)
    return key === addressKey(`::ffff:${address}`, direct) && (key === 'loopback') === (direct && address.startsWith('127.'))
  }))
  holds(t, fc.property(fc.array(fc.integer({ min: 0x100, max: 0xffff }), { minLength: 8, maxLength: 8 }), fc.array(fc.integer({ min: 0, max: 0xffff }), { minLength: 4, maxLength: 4 }), (groups, others) => {
    const write = (list: number[]): string => list.map(group => group.toString(16)).join(':')
    // A network of 64 bits belongs to one subscriber.
    return addressKey(write(groups), true) === addressKey(write([...groups.slice(0, 4), ...others]), true) &&
      addressKey(write(groups), true) !== addressKey(write([groups[0]! ^ 1, ...groups.slice(1)]), true)
  }))
  holds(t, fc.property(fc.oneof(fc.string(), fc.ipV6(), fc.ipV4Extended()), fc.boolean(), (text, direct) => {
    const key = addressKey(text, direct)
    return key.length > 0 && key.length < 64
  }))
})

/** A rate, and the milliseconds between draws. */
const rate = fc.record({ capacity: fc.integer({ min: 1, max: 50 }), per: fc.integer({ min: 1, max: 2_000 }) })
const pauses = fc.array(fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.double({ min: 0, max: 3_000, noNaN: true })), { minLength: 1, maxLength: 200 })
const rounding = 1e-6

t.test('in any span of time a bucket serves at most its capacity and the inflow of that span', async t => {
  holds(t, fc.property(rate, pauses, (rate, pauses) => {
    const bucket: Bucket = { tokens: rate.capacity, filledAt: 0, creditedUntil: 0 }
    const served: number[] = []
    let now = 0
    for (const pause of pauses) {
      now += pause
      if (draw(bucket, rate, now) >= 0) served.push(now)
    }
    return served.every((from, first) => served.every((until, last) => last < first || last - first + 1 <= rate.capacity + (until - from) * rate.capacity / rate.per + rounding))
  }), { numRuns: 300 })
})

t.test('a bucket has the same level as a reference that is refilled at each step', async t => {
  holds(t, fc.property(rate, pauses, (rate, pauses) => {
    const bucket: Bucket = { tokens: rate.capacity, filledAt: 0, creditedUntil: 0 }
    let [tokens, now] = [rate.capacity, 0]
    return pauses.every(pause => {
      now += pause
      tokens = Math.min(rate.capacity, tokens + pause * rate.capacity / rate.per)
      const before = level(bucket, rate, now)
      tokens = Math.max(tokens, -rate.capacity) - 1
      const left = draw(bucket, rate, now)
      return Math.abs(left - tokens) < rounding && Math.abs(before - 1 - left) <= 1 + rounding && left >= -rate.capacity - 1 && left <= rate.capacity - 1
    })
  }))
})

t.test('draws within the rate are always served, and draws after a pause are served again', async t => {
  holds(t, fc.property(rate, fc.integer({ min: 1, max: 500 }), fc.integer({ min: 0, max: 300 }), ({ capacity, per }, count, floods) => {
    const bucket: Bucket = { tokens: capacity, filledAt: 0, creditedUntil: 0 }
    let now = 0
    for (let n = 0; n < count; n++) {
      now += per / capacity + rounding
      if (draw(bucket, { capacity, per }, now) < 0) return false
    }
    for (let n = 0; n < floods; n++) draw(bucket, { capacity, per }, now)
    // The lowest level is refilled in a little more than twice the time of the rate.
    now += per * 2 + per / capacity + rounding
    return level(bucket, { capacity, per }, now) >= capacity - rounding && draw(bucket, { capacity, per }, now) >= 0
  }))
})

t.test('a credit is at most the inflow of the time that frames waited', async t => {
  holds(t, fc.property(rate, fc.double({ min: -50, max: 50, noNaN: true }), fc.double({ min: 0, max: 3_000, noNaN: true }), fc.double({ min: 0, max: 3_000, noNaN: true }), (rate, tokens, pause, waited) => {
    const start = Math.min(tokens, rate.capacity)
    const bucket: Bucket = { tokens: start, filledAt: 0, creditedUntil: 0 }
    const plain = level(bucket, rate, pause)
    const beyond = credit(bucket, rate, pause, waited)
    const most = rate.capacity + waited * rate.capacity / rate.per
    return bucket.tokens <= most + rounding && bucket.tokens >= plain - rounding && bucket.tokens <= start + pause * rate.capacity / rate.per + rounding &&
      Math.abs(beyond - Math.max(0, bucket.tokens - rate.capacity)) < rounding && bucket.filledAt === pause
  }))
})
