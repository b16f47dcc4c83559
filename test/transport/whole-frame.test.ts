import { once } from 'node:events'
import { connect, type AddressInfo } from 'node:net'
import { setImmediate as turnEnd } from 'node:timers/promises'
import { constants, deflateRawSync } from 'node:zlib'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import * as ws from 'ws'
import { receiverOf, type Holder, type Receiver } from '../../lib/internals.ts'
import { takeOver } from '../../lib/transport/ws/receiver.ts'

type RealReceiver = Receiver & Holder & NodeJS.EventEmitter
const { Receiver: WsReceiver, PerMessageDeflate } = ws as unknown as {
  Receiver: new (options: object) => RealReceiver
  PerMessageDeflate: new (options: object) => { accept (offers: object[]): object, cleanup (): void }
}

const bounds = { isServer: true, maxPayload: 1_000, maxFragments: 8, maxBufferedChunks: 1_000 }

/** A receiver, its events, and the number of chunks that reached the parser of ws. */
function receive (direct: boolean, options: object = bounds): { receiver: RealReceiver, events: string[], parsed: () => number } {
  const deflate = new PerMessageDeflate({ isServer: true, maxPayload: 1_000 })
  deflate.accept([{}])
  const receiver = new WsReceiver({ ...options, extensions: { 'permessage-deflate': deflate } })
  const events: string[] = []
  for (const event of ['message', 'ping', 'pong', 'conclude', 'finish']) {
    receiver.on(event, (...args: unknown[]) => { events.push([event, ...args.map(arg => Buffer.isBuffer(arg) ? arg.toString('latin1') : arg)].join(' ')) })
  }
  receiver.on('error', (error: Error & { code?: string }) => { events.push(`error ${error.code} ${error.message}`) })
  if (direct) takeOver(receiver)
  let parsed = 0
  const { _write } = receiver
  receiver._write = function (chunk, encoding, done) {
    parsed++
    // ws 8.23.0 alone keeps parsing after a violation, and throws.
    if (this.errored === null) _write.call(this, chunk, encoding, done)
    else done()
  }
  return { receiver, events, parsed: () => parsed }
}

interface FrameOptions { fin?: boolean, rsv?: number, mask?: Buffer | undefined, length?: number }
const someMask = Buffer.of(1, 0x82, 3, 0xf4)

/** A frame of a client. `length` is the length in its header, which may be wrong. */
function frame (opcode: number, payload: Buffer, { fin = true, rsv = 0, mask = someMask, length = payload.length }: FrameOptions = {}): Buffer {
  const head = Buffer.alloc(length < 126 ? 2 : length < 65_536 ? 4 : 10)
  head[0] = (fin ? 0x80 : 0) | rsv << 4 | opcode
  head[1] = 0x80 | (length < 126 ? length : length < 65_536 ? 126 : 127)
  if (head.length === 4) head.writeUInt16BE(length, 2)
  else if (head.length === 10) head.writeBigUInt64BE(BigInt(length), 2)
  return Buffer.concat([head, mask, payload.map((byte, index) => byte ^ mask[index % 4]!)])
}

function unmasked (payload: Buffer): Buffer {
  return Buffer.concat([Buffer.of(0x81, payload.length), payload])
}

/** Writes chunks, each with memory of its own, and waits until no further event comes. */
async function write (receiver: RealReceiver, bytes: Buffer, ends: number[], turns: (index: number) => boolean): Promise<void> {
  let at = 0
  const closed = new Promise(resolve => { receiver.on('close', resolve) })
  for (const [index, end] of ends.entries()) {
    if (end <= at) continue
    const chunk = Buffer.allocUnsafeSlow(end - at)
    bytes.copy(chunk, 0, at, end)
    // The socket stops writing after a violation or a close frame.
    if (receiver.writable) receiver.write(chunk)
    at = end
    if (turns(index)) await turnEnd()
  }
  receiver.end()
  await closed
}

const utf8 = ['', 'a', 'plain text', 'x'.repeat(125), 'y'.repeat(126), 'z'.repeat(900), 'ü', '€'.repeat(41), '😀', 'aé😀'.repeat(12)].map(text => Buffer.from(text))
const notUtf8 = ['ff', 'c0af', 'eda080', 'f4908080', 'e282', '61'.repeat(40) + '80', 'f0'].map(hex => Buffer.from(hex, 'hex'))
const deflated = (text: string): Buffer => deflateRawSync(text, { finishFlush: constants.Z_SYNC_FLUSH }).subarray(0, -4)

const payload = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...utf8) },
  { weight: 2, arbitrary: fc.string({ maxLength: 200 }).map(text => Buffer.from(text)) }
)
const mask = fc.oneof(fc.constant(someMask), fc.constant(Buffer.alloc(4)), fc.uint8Array({ minLength: 4, maxLength: 4 }).map(bytes => Buffer.from(bytes)))
const sound = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(payload, mask).map(([payload, mask]) => [frame(1, payload, { mask })]) },
  { weight: 2, arbitrary: payload.map(payload => [frame(2, payload)]) },
  { weight: 2, arbitrary: fc.tuple(fc.constantFrom(9, 10), fc.constantFrom(...utf8.filter(({ length }) => length < 126))).map(([opcode, payload]) => [frame(opcode, payload)]) },
  { weight: 2, arbitrary: fc.array(payload, { minLength: 2, maxLength: 4 }).map(parts => parts.map((part, index) => frame(index === 0 ? 1 : 0, part.subarray(0, 200), { fin: index === parts.length - 1 }))) },
  { weight: 1, arbitrary: fc.tuple(payload, payload).map(([one, two]) => [frame(1, one.subarray(0, 200), { fin: false }), frame(9, two.subarray(0, 100)), frame(0, two.subarray(0, 200))]) },
  // A payload that is itself a frame, in a chunk of its own.
  { weight: 2, arbitrary: fc.constantFrom(...utf8.filter(({ length }) => length < 110)).map(text => frame(1, text)).map(inner => [frame(2, inner, { mask: Buffer.alloc(4) }).subarray(0, -inner.length), inner]) },
  { weight: 1, arbitrary: fc.constantFrom('', 'text', 'text and again '.repeat(30)).map(text => [frame(1, deflated(text), { rsv: 4 })]) }
)
/** Frames that violate RFC 6455 or a limit, and the close frame. */
const last = fc.oneof(
  fc.constantFrom(...notUtf8).map(payload => [frame(1, payload)]),
  fc.constantFrom(...notUtf8).map(payload => [frame(1, payload.subarray(0, 1), { fin: false }), frame(0, payload.subarray(1))]),
  fc.constantFrom(1_001, 1_400, 70_000).map(length => [frame(1, Buffer.alloc(length, 'a'))]),
  fc.constantFrom(1_001, 65_536, 2 ** 40).map(length => [frame(1, Buffer.alloc(3), { length })]),
  fc.constant([frame(1, deflated('a'.repeat(5_000)), { rsv: 4 })]),
  fc.constant([frame(1, Buffer.from('not deflated'), { rsv: 4 })]),
  fc.constantFrom(1, 2, 3, 5, 6, 7).map(rsv => [frame(1, Buffer.from('abc'), { rsv })]),
  fc.constantFrom(3, 4, 5, 6, 7, 11, 12, 13, 14, 15, 0).map(opcode => [frame(opcode, Buffer.from('abc'))]),
  fc.constantFrom(1, 2).map(opcode => [frame(1, Buffer.from('a'), { fin: false }), frame(opcode, Buffer.from('b'))]),
  fc.constantFrom('a', 'b'.repeat(60)).map(text => [unmasked(Buffer.from(text))]),
  fc.constant([frame(9, Buffer.alloc(126))]),
  fc.constant([frame(9, Buffer.from('a'), { fin: false })]),
  fc.constant(Array.from({ length: 12 }, (_, index) => frame(index === 0 ? 1 : 0, Buffer.from('a'), { fin: false }))),
  fc.constantFrom('', '03e8', '03e8616263', '03ed', '61', '03e8ff').map(hex => [frame(8, Buffer.from(hex, 'hex'))])
)

/** Compares a receiver that hands on whole frames with one of ws alone. Returns the number of chunks that bypassed ws. */
async function compare (frames: Buffer[], ends: number[], turns: (index: number) => boolean): Promise<number> {
  const bytes = Buffer.concat(frames)
  const [alone, direct] = [receive(false), receive(true)]
  await Promise.all([alone, direct].map(({ receiver }) => write(receiver, bytes, ends, turns)))
  if (alone.events.join('\n') !== direct.events.join('\n')) throw new Error(`${bytes.toString('hex')} cut at ${ends}: ws alone ${JSON.stringify(alone.events)}, with whole frames ${JSON.stringify(direct.events)}`)
  return alone.parsed() - direct.parsed()
}

/** The offsets of the frame ends. */
function endsOf (frames: Buffer[]): number[] {
  let at = 0
  return frames.map(({ length }) => (at += length))
}

t.test('a stream of frames gives the same events as with ws alone, however it is cut and joined', async t => {
  let handedOn = 0
  const frames = fc.tuple(fc.array(sound, { minLength: 2, maxLength: 10 }), fc.option(last), fc.array(sound, { maxLength: 2 })).map(([before, last, after]) => [...before, ...last === null ? [] : [last], ...after].flat())
  await fc.assert(fc.asyncProperty(frames, fc.array(fc.tuple(fc.nat(), fc.boolean()), { maxLength: 12 }), fc.constantFrom(0, 1, 2), fc.array(fc.boolean(), { minLength: 1, maxLength: 7 }), async (frames, cuts, joined, turns) => {
    const ends = endsOf(frames)
    const total = ends.at(-1) ?? 0
    // Most chunks end with a frame; some frames are joined, and some are cut at any byte.
    const places = [...ends.filter((_, index) => joined === 0 || (index + 1) % (joined + 1) === 0), ...cuts.filter(([, used]) => used).map(([place]) => total === 0 ? 0 : place % total), total]
    handedOn += await compare(frames, places.sort((a, b) => a - b), index => turns[index % turns.length]!)
  }), { numRuns: 1_500 })
  t.ok(handedOn > 400, `${handedOn} frames were handed on directly`)
})

t.test('a stream of frames gives the same events as with ws alone, cut at every byte', async t => {
  const short = Buffer.from('aé😀')
  const streams = [
    [frame(1, short), frame(1, Buffer.alloc(0)), frame(9, short), frame(1, Buffer.alloc(126, 'b')), frame(2, short), frame(1, short, { fin: false }), frame(0, short), frame(1, short), frame(8, Buffer.of(3, 0xe8, 0x61))],
    ...notUtf8.map(payload => [frame(1, short), frame(1, payload), frame(1, short)]),
    [frame(1, short), unmasked(short), frame(1, short)],
    [frame(1, short), unmasked(Buffer.alloc(125, 'd')), frame(1, short)],
    [frame(1, short), frame(1, Buffer.alloc(1_001, 'c'))],
    [frame(1, short), frame(1, deflated('text'), { rsv: 4 }), frame(1, short)]
  ]
  let handedOn = 0
  for (const frames of streams) {
    const ends = endsOf(frames)
    for (let cut = 0; cut < Math.min(ends.at(-1)!, 300); cut++) {
      for (const places of [[cut, ends.at(-1)!], [...ends, cut]]) handedOn += await compare(frames, places.sort((a, b) => a - b), () => cut % 2 === 0)
    }
  }
  t.ok(handedOn > 1_000, `${handedOn} frames were handed on directly`)
})

t.test('frames of every length are unmasked as in ws, up to 64 KiB and the limit of the receiver', async t => {
  for (const length of [0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 255, 256, 1_000, 1_001, 65_535, 65_536]) {
    for (const maxPayload of [0, 1_000, 1_000_000]) {
      const { receiver, events, parsed } = receive(true, { ...bounds, maxPayload })
      const text = Buffer.from(Array.from({ length }, (_, index) => 0x20 + index % 90))
      receiver.write(frame(1, text))
      await turnEnd()
      const isLong = maxPayload === 1_000 && length > 1_000
      t.equal(events[0], isLong ? 'error WS_ERR_UNSUPPORTED_MESSAGE_LENGTH Max payload size exceeded' : `message ${text} false`, `${length} bytes`)
      t.equal(parsed(), isLong || length > 65_535 ? 1 : 0)
    }
  }
})

t.test('a chunk that ws answers with a violation reaches ws unchanged', async t => {
  for (const payload of notUtf8) {
    const { receiver } = receive(true)
    const bytes = frame(1, payload)
    let chunk: Buffer | undefined
    receiver._write = (given, _encoding, done) => {
      chunk = given
      done()
    }
    const read = Buffer.from(bytes)
    receiver.write(read)
    t.equal(chunk, read)
    t.same(chunk, bytes)
  }
})

t.test('a receiver that defers events, skips the check of UTF-8, or belongs to a client parses every chunk itself', async t => {
  for (const option of [{ allowSynchronousEvents: false }, { skipUTF8Validation: true }, { isServer: false }, {}]) {
    const { receiver } = receive(true, { ...bounds, ...option })
    t.equal(Object.hasOwn(receiver, 'write'), Object.keys(option).length === 0, JSON.stringify(option))
  }
  for (const member of ['_maxPayload', '_isServer', '_allowSynchronousEvents', '_skipUTF8Validation', '_state', 'message']) {
    const receiver = new WsReceiver({ ...bounds })
    if (member !== 'message') receiver.on('message', () => {})
    Reflect.deleteProperty(receiver, member)
    takeOver(receiver)
    t.notOk(Object.hasOwn(receiver, 'write'), `without ${member}`)
  }
})

t.test('write keeps the contract of a stream', async t => {
  const { receiver, events, parsed } = receive(true)
  t.equal(receiver.write(frame(1, Buffer.from('a'))), true)
  const { write } = receiver as unknown as { write (chunk: Buffer, ...rest: unknown[]): boolean }
  await new Promise<void>(resolve => { write.call(receiver, frame(1, Buffer.from('b')), 'utf8', resolve) })
  await new Promise<void>(resolve => { write.call(receiver, frame(1, Buffer.from('c')), undefined, resolve) })
  t.same(events, ['message a false', 'message b false', 'message c false'])
  t.equal(parsed(), 2)
})

t.test('frames that a listener writes during an event come after it', async t => {
  for (const ends of [false, true]) {
    const [alone, direct] = [receive(false), receive(true)]
    for (const { receiver, events } of [alone, direct]) {
      let written = false
      receiver.on('message', () => {
        if (written) return
        written = true
        for (const text of ['b', 'c']) receiver.write(frame(1, Buffer.from(text)))
        if (ends) receiver.end()
        events.push('returns')
      })
      receiver.write(frame(1, Buffer.from('a')))
      if (!ends) receiver.write(frame(1, Buffer.from('d')))
      await turnEnd()
    }
    t.same([...direct.events].sort(), [...alone.events].sort())
    if (!ends) t.same(direct.events, alone.events)
  }
})

t.test('a frame written while a chunk is parsed, or after the end or a violation, goes to the stream', async t => {
  const { receiver, events } = receive(true)
  let parsed: (() => void) | undefined
  receiver._write = (_chunk, _encoding, done) => { parsed = done }
  receiver.write(Buffer.of(0x82))
  receiver.write(frame(1, Buffer.from('a')))
  t.same(events, [])
  t.equal(receiver.writableLength, 1 + 6 + 1)
  parsed!()
  for (const end of ['end', 'violation']) {
    const [alone, direct] = [receive(false), receive(true)]
    for (const { receiver, events } of [alone, direct]) {
      if (end === 'end') receiver.end()
      else receiver.write(frame(3, Buffer.alloc(0)))
      receiver.write(frame(1, Buffer.from('a')))
      await turnEnd()
      t.notMatch(events.join(), 'message', end)
    }
    t.same(direct.events, alone.events)
  }
})

t.test('a listener that throws has the same effect as in ws, and the next frame is handled', async t => {
  const { receiver, events } = receive(true)
  receiver.once('message', () => { throw new Error('of a listener') })
  t.throws(() => receiver.write(frame(1, Buffer.from('a'))), { message: 'of a listener' })
  receiver.write(frame(1, Buffer.from('b')))
  t.same(events, ['message a false', 'message b false'])
})

/** A WebSocket of a server, whose peer writes these frames, one in each turn, and its events. */
async function serve (t: Test, direct: boolean, frames: Buffer[], act: (socket: ws.WebSocket) => void): Promise<string[]> {
  const server = new ws.WebSocketServer({ host: '127.0.0.1', port: 0 })
  t.teardown(() => { server.close() })
  await once(server, 'listening')
  const events: string[] = []
  const closed = new Promise(resolve => {
    server.on('connection', socket => {
      if (direct) takeOver(receiverOf(socket)!)
      socket.on('error', error => { events.push(`error ${error.message}`) })
      socket.on('message', (data: Buffer, isBinary: boolean) => {
        events.push(`message ${data} ${isBinary}`)
        if (data.toString() === 'act') act(socket)
      })
      socket.on('close', (code, reason) => { resolve(events.push(`close ${code} ${reason}`)) })
    })
  })
  const peer = connect((server.address() as AddressInfo).port, '127.0.0.1').on('error', () => {})
  peer.setNoDelay(true).resume()
  peer.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n')
  await once(peer, 'data')
  for (const bytes of frames) {
    peer.write(bytes)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
  peer.end()
  await closed
  return events
}

t.test('a socket that a listener closes, terminates or pauses has the same events as with ws alone', async t => {
  const frames = ['a', 'act', 'b', 'c'].map(text => frame(1, Buffer.from(text)))
  const actions: Record<string, (socket: ws.WebSocket) => void> = {
    nothing () {},
    close (socket) { socket.close(4000, 'enough') },
    terminate (socket) { socket.terminate() },
    pause (socket) {
      socket.pause()
      setTimeout(() => { socket.resume() }, 50)
    },
    'pause and resume' (socket) {
      socket.pause()
      socket.resume()
    }
  }
  for (const [name, act] of Object.entries(actions)) {
    const [alone, direct] = [await serve(t, false, frames, act), await serve(t, true, frames, act)]
    t.same(direct, alone, name)
    t.ok(direct.length >= 3, direct.join())
  }
})
