import { once } from 'node:events'
import { setImmediate as turnEnd } from 'node:timers/promises'
import { constants, deflateRawSync } from 'node:zlib'
import fc from 'fast-check'
import t from 'tap'
import * as ws from 'ws'
import { takeOver } from '../../lib/transport/ws/receiver.ts'
import { isHolder, lowerMaxPayload, type Holder, type Receiver } from '../../lib/internals.ts'
import { compact, isUnfinished } from '../../lib/transport/ws/unfinished.ts'

type RealReceiver = Receiver & Holder & NodeJS.EventEmitter & { write (chunk: Buffer): boolean }
const { Receiver: WsReceiver, PerMessageDeflate } = ws as unknown as {
  Receiver: new (options: object) => RealReceiver
  PerMessageDeflate: new (options: object) => { accept (offers: object[]): object, _maxPayload: number, cleanup (): void }
}

/** The memory of a chunk besides its bytes, as measured with Node.js 20. */
const overhead = 300

/** The receiver of a connection. */
function receiverOf (compressed = false, maxPayload = 1_048_576): RealReceiver {
  const extensions: Record<string, object> = {}
  if (compressed) {
    const deflate = new PerMessageDeflate({ isServer: true, maxPayload })
    deflate.accept([{}])
    extensions['permessage-deflate'] = deflate
  }
  return new WsReceiver({ isServer: true, maxPayload, maxFragments: 16_384, maxBufferedChunks: 262_144, extensions })
}

/** A frame of a client. */
function frame (opcode: number, payload: Buffer, { fin = true, rsv1 = false, mask = Buffer.of(1, 2, 3, 4) } = {}): Buffer {
  const { length } = payload
  const head = Buffer.alloc(length < 126 ? 2 : length < 65_536 ? 4 : 10)
  head[0] = (fin ? 0x80 : 0) | (rsv1 ? 0x40 : 0) | opcode
  head[1] = 0x80 | (length < 126 ? length : length < 65_536 ? 126 : 127)
  if (head.length === 4) head.writeUInt16BE(length, 2)
  else if (head.length === 10) head.writeBigUInt64BE(BigInt(length), 2)
  return Buffer.concat([head, mask, payload.map((byte, index) => byte ^ mask[index % 4]!)])
}

/** A chunk as a socket reads it, with memory of its own. */
function chunk (bytes: Uint8Array): Buffer {
  const own = Buffer.allocUnsafeSlow(bytes.length)
  own.set(bytes)
  return own
}

/** Bytes of memory that a receiver holds; each underlying buffer counts once. */
function cost ({ _buffers, _fragments }: Holder): number {
  const pieces = [..._buffers, ..._fragments]
  const memory = new Set(pieces.map(({ buffer }) => buffer))
  return [...memory].reduce((sum, { byteLength }) => sum + byteLength, 0) + pieces.length * overhead
}

const text = (length: number): Buffer => Buffer.from(Array.from({ length }, (_, index) => 0x20 + index % 95))

t.test('issue 8: a frame of 131,000 bytes, read byte by byte, costs a small multiple of its bytes', async t => {
  for (const bounded of [false, true]) {
    const payload = text(bounded ? 131_000 : 4_000)
    const bytes = frame(1, payload)
    const receiver = receiverOf()
    if (bounded) t.equal(takeOver(receiver), receiver)
    let message: Buffer | undefined
    receiver.on('message', data => { message = data })
    let most = 0
    for (const [index, byte] of bytes.entries()) {
      receiver._write(chunk(Buffer.of(byte)), 'utf8', () => {})
      if (index % 997 === 0 && index < bytes.length - 1) most = Math.max(most, cost(receiver) / (index + 1_000))
    }
    t.ok(message?.equals(payload))
    t.equal(isUnfinished(receiver), false)
    if (bounded) t.ok(most < 20, `${most} bytes for a byte`)
    else t.ok(most > 200, 'ws alone keeps every chunk')
  }
})

t.test('issue 8: 2,000 fragments of one byte, each in a read of 64 KiB, cost little more than their bytes', async t => {
  const receiver = receiverOf()
  takeOver(receiver)
  let pings = 0
  receiver.on('ping', () => { pings++ })
  let message: Buffer | undefined
  receiver.on('message', data => { message = data })
  const ping = frame(9, Buffer.alloc(125))
  const fragments = 2_000
  for (let n = 0; n < fragments; n++) {
    const read = Buffer.allocUnsafeSlow(65_536)
    const parts = Buffer.concat([frame(n === 0 ? 1 : 0, Buffer.of(0x61), { fin: false }), frame(0, Buffer.alloc(0), { fin: false }), ping])
    read.set(parts)
    receiver._write(read.subarray(0, parts.length), 'utf8', () => {})
    if (n % 100 === 99) t.ok(cost(receiver) < 20_000 + 20 * n, `${cost(receiver)} bytes after ${n + 1} fragments`)
    t.ok(isUnfinished(receiver))
  }
  receiver._write(frame(0, Buffer.of(0x62)), 'utf8', () => {})
  t.equal(message?.toString(), 'a'.repeat(fragments) + 'b')
  t.equal(pings, fragments)
  t.notOk(isUnfinished(receiver))
})

t.test('the beginning of a frame at the end of a read does not keep the read\'s memory', async t => {
  const receiver = receiverOf()
  takeOver(receiver)
  receiver.on('message', () => {})
  const read = Buffer.allocUnsafeSlow(65_536)
  const whole = frame(1, text(60_000))
  read.set(whole)
  read.set(frame(1, text(10)).subarray(0, 7), whole.length)
  receiver._write(read.subarray(0, whole.length + 7), 'utf8', () => {})
  t.ok(isUnfinished(receiver))
  t.ok(cost(receiver) < 1_000)
})

t.test('chunks of usual network sizes are not merged', async t => {
  const receiver = receiverOf()
  takeOver(receiver)
  receiver.on('message', () => {})
  const bytes = frame(2, Buffer.alloc(1_000_000))
  const chunks = Array.from({ length: Math.ceil(bytes.length / 1_448) }, (_, index) => chunk(bytes.subarray(index * 1_448, (index + 1) * 1_448)))
  receiver._write(chunks[0]!, 'utf8', () => {})
  for (const [index, bytes] of chunks.slice(1, -1).entries()) {
    receiver._write(bytes, 'utf8', () => {})
    if (index > 300) t.equal(receiver._buffers.at(-1), bytes)
  }
  t.equal(receiver._buffers.length, chunks.length - 1)
})

t.test('a large chunk among small ones is not copied, and does not keep them from being merged', async t => {
  const large = Buffer.alloc(4_096, 2)
  const buffers = [...Array.from({ length: 100 }, () => chunk(Buffer.of(1))), large, ...Array.from({ length: 100 }, () => chunk(Buffer.of(3)))]
  const bytes = Buffer.concat(buffers)
  const holder = { _buffers: buffers, _bufferedBytes: bytes.length, _fragments: [], _messageLength: 0, _fragmented: 0, _state: 4 }
  compact(holder)
  t.equal(buffers.length, 3)
  t.equal(buffers[1], large)
  t.ok(Buffer.concat(buffers).equals(bytes))
})

t.test('the time to merge grows linearly with the bytes', async t => {
  const millisecondsFor = (length: number): number => {
    const chunks = Array.from(frame(2, Buffer.alloc(length)), byte => chunk(Buffer.of(byte)))
    const receiver = receiverOf(false, 4_194_304)
    takeOver(receiver)
    receiver.on('message', () => {})
    const before = performance.now()
    for (const one of chunks) receiver._write(one, 'utf8', () => {})
    return performance.now() - before
  }
  millisecondsFor(50_000)
  const [few, many] = [millisecondsFor(30_000), millisecondsFor(240_000)]
  t.comment(`30,000 bytes: ${few.toFixed(1)} ms, 240,000: ${many.toFixed(1)} ms`)
  t.ok(many < 30 * few + 500, 'quadratic would be 64 times')
})

/** A message: its payload, its fragments, whether it is compressed, and pings between its fragments. */
const message = fc.record({
  payload: fc.oneof(fc.uint8Array({ maxLength: 300 }), fc.nat(6_000).map(text)).map(bytes => Buffer.from(bytes)),
  cuts: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 150 }),
  compressed: fc.boolean(),
  mask: fc.uint8Array({ minLength: 4, maxLength: 4 }).map(bytes => Buffer.from(bytes)),
  pings: fc.boolean()
})

function framesOf ({ payload, cuts, compressed, mask, pings }: typeof message extends fc.Arbitrary<infer M> ? M : never, deflate: boolean): Buffer {
  const rsv1 = compressed && deflate
  const bytes = rsv1 ? deflateRawSync(payload, { finishFlush: constants.Z_SYNC_FLUSH }).subarray(0, -4) : payload
  const places = [0, ...cuts.map(cut => Math.floor(cut * bytes.length)).sort((a, b) => a - b), bytes.length]
  const fragments = places.slice(1).map((end, index) => frame(index === 0 ? 2 : 0, bytes.subarray(places[index], end), { fin: index === places.length - 2, rsv1: rsv1 && index === 0, mask }))
  return Buffer.concat(fragments.flatMap((fragment, index) => pings && index > 0 ? [frame(9, Buffer.of(index & 0x7f)), fragment] : [fragment]))
}

t.test('messages have the same bytes for all ways to fragment, compress and chunk them', async t => {
  await fc.assert(fc.asyncProperty(fc.array(message, { minLength: 1, maxLength: 3 }), fc.boolean(), fc.array(fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 5_000 })), { minLength: 1, maxLength: 50 }), async (messages, deflate, sizes) => {
    const bytes = Buffer.concat(messages.map(message => framesOf(message, deflate)))
    const receiver = receiverOf(deflate)
    if (takeOver(receiver) === undefined) throw new Error('ws is unknown')
    const received: Buffer[] = []
    receiver.on('message', data => { received.push(data) })
    const failed = once(receiver, 'error').then(([error]) => { throw error })
    failed.catch(() => {})
    // Several chunks share one read, and many are larger than one read.
    for (let at = 0, n = 0; at < bytes.length; n++) {
      const size = sizes[n % sizes.length]!
      receiver.write(n % 3 === 0 ? chunk(bytes.subarray(at, at + size)) : Buffer.from(bytes).subarray(at, at + size))
      at += size
    }
    while (received.length < messages.length) await Promise.race([turnEnd(), failed])
    return received.every((data, index) => data.equals(messages[index]!.payload))
  }), { numRuns: 100 })
  t.pass('100 cases')
})

t.test('a receiver is accepted only if each used member has the expected type', async t => {
  const receiver = receiverOf()
  t.ok(isHolder(receiver))
  for (const member of ['_buffers', '_bufferedBytes', '_fragments', '_messageLength', '_fragmented', '_state'] as const) {
    const other = receiverOf()
    Reflect.deleteProperty(other, member)
    t.notOk(isHolder(other), member)
    t.equal(takeOver(other), undefined)
  }
})

t.test('the bound of a message is lowered, and never raised, also for inflated messages', async t => {
  const receiver = receiverOf(true, 1_000)
  const bounds = (): unknown[] => [receiver._maxPayload, receiver._extensions?.['permessage-deflate']?._maxPayload]
  lowerMaxPayload(receiver, 2_000)
  t.same(bounds(), [1_000, 1_000])
  lowerMaxPayload(receiver, 500)
  t.same(bounds(), [500, 500])
  const unbounded = receiverOf(false, 0)
  lowerMaxPayload(unbounded, 500)
  t.equal(unbounded._maxPayload, 500)
  const unknown = { ...receiver, _maxPayload: undefined, _extensions: undefined } as unknown as Receiver
  lowerMaxPayload(unknown, 500)
  t.equal(unknown._maxPayload, undefined)
})
