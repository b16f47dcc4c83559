import type { Writable } from 'node:stream'
import t from 'tap'
import * as ws from 'ws'
import { unpooled, payloadOf, textFrame } from '../../lib/transport/ws/frame.ts'

/** Exported by ws, but not typed. */
const { Receiver } = ws as unknown as { Receiver: new (options: { isServer: boolean }) => Writable }

/** Messages that ws reads from bytes of a server, in order. */
async function receive (bytes: Buffer): Promise<{ text: string, isBinary: boolean }[]> {
  const receiver = new Receiver({ isServer: false })
  const messages: { text: string, isBinary: boolean }[] = []
  receiver.on('message', (data: Buffer, isBinary: boolean) => { messages.push({ text: data.toString(), isBinary }) })
  await new Promise<void>((resolve, reject) => {
    receiver.on('error', reject)
    receiver.end(bytes, resolve)
  })
  return messages
}

const heads: [number, number[]][] = [
  [0, [0x81, 0]],
  [1, [0x81, 1]],
  [125, [0x81, 125]],
  [126, [0x81, 126, 0, 126]],
  [256, [0x81, 126, 1, 0]],
  [65_535, [0x81, 126, 0xff, 0xff]],
  [65_536, [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]],
  [16_909_060, [0x81, 127, 0, 0, 0, 0, 1, 2, 3, 4]]
]

t.test('a frame has the shortest header for its length, and ws reads it as one text message', async t => {
  for (const [length, head] of heads) {
    const rest = Buffer.alloc(length, 'x')
    const frame = textFrame('', rest)
    t.same([...frame.subarray(0, head.length)], head, `${length} bytes`)
    t.equal(frame.length, head.length + length)
    t.ok(payloadOf(frame).equals(rest), 'the end of the frame is its payload')
    t.equal(payloadOf(frame).buffer, frame.buffer, 'no copy')
    const messages = await receive(frame)
    t.same(messages.map(({ text, isBinary }) => [text.length, isBinary]), [[length, false]])
    t.equal(messages[0]!.text, rest.toString())
  }
})

t.test('the head is part of the length, and stands before the rest', async t => {
  for (const length of [120, 121, 65_530, 65_531]) {
    const frame = textFrame('head:', Buffer.alloc(length, 'y'))
    t.equal(frame.length, 5 + length + (length + 5 <= 125 ? 2 : length + 5 <= 65_535 ? 4 : 10))
    t.same(await receive(frame), [{ text: `head:${'y'.repeat(length)}`, isBinary: false }])
  }
})

t.test('lengths count bytes, not characters', async t => {
  const text = 'ü'.repeat(63)
  const frame = textFrame('', Buffer.from(text))
  t.same([...frame.subarray(0, 4)], [0x81, 126, 0, 126])
  t.equal(payloadOf(frame).toString(), text)
  t.same(await receive(frame), [{ text, isBinary: false }])
})

t.test('concatenated frames are separate messages', async t => {
  const lengths = [0, 3, 125, 126, 65_535, 65_536, 1]
  const messages = await receive(Buffer.concat(lengths.map(length => textFrame('', Buffer.alloc(length, 'z')))))
  t.same(messages.map(({ text }) => text.length), lengths)
})

t.test('unpooled bytes keep at most twice their size alive', async t => {
  for (const length of [1, 100, 3_000, 70_000]) {
    const bytes = textFrame('x'.repeat(length))
    const copy = unpooled(bytes)
    t.ok(copy.equals(bytes))
    t.ok(copy.buffer.byteLength <= 2 * copy.length, `${copy.length} bytes in ${copy.buffer.byteLength}`)
    t.equal(unpooled(copy), copy, 'a second call does not copy')
  }
  const most = Buffer.allocUnsafeSlow(1_000).subarray(0, 500)
  t.equal(unpooled(most), most)
})
