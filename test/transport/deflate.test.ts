import { randomBytes } from 'node:crypto'
import { inflateRawSync } from 'node:zlib'
import t from 'tap'
import { Deflate } from '../../lib/transport/ws/deflate.ts'
import { Outgoing } from '../../lib/feed/outgoing.ts'
import { Delivery } from '../../lib/room/delivery.ts'
import { encodingOf, encodings } from '../../lib/transport/encoding.ts'
import { payloadOf, textFrame } from '../../lib/transport/ws/frame.ts'

const delivery = (text: string, deflate?: Deflate): Delivery => new Delivery(new Outgoing({ uid: '1', node: 'n', topic: 'news', deadline: 0 }, JSON.stringify(text)), undefined, true, deflate)
const rawText = encodingOf('rooms.raw', true)

function inflate (frame: Buffer): string {
  return inflateRawSync(Buffer.concat([payloadOf(frame), Buffer.of(0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff)])).toString()
}

t.test('a frame is compressed as a whole, and marked as compressed', async t => {
  const text = 'ü and again '.repeat(200)
  const plain = textFrame(text)
  const frame = new Deflate({}).compress(plain)
  t.equal(frame[0], 0xc1)
  t.ok(frame.length < plain.length / 10)
  t.not(frame.subarray(-4).toString('hex'), '0000ffff', 'the constant end of the block is left out')
  t.equal(inflate(frame), text)
})

t.test('short, long and random texts are not compressed', async t => {
  const deflate = new Deflate({})
  const noise = randomBytes(3_000).toString('latin1').replace(/[^ -~]/g, '')
  for (const [text, compressed] of [['a'.repeat(1_023), false], ['a'.repeat(1_024), true], ['a'.repeat(65_536), true], ['a'.repeat(65_537), false]] as const) {
    const plain = textFrame(text)
    t.equal(deflate.compress(plain) !== plain, compressed, `${text.length} bytes`)
  }
  const random = textFrame(noise)
  const tiny = textFrame('{"a":1}')
  t.equal(inflate(new Deflate({ threshold: 0 }).compress(random)), noise)
  t.equal(new Deflate({ threshold: 0 }).compress(tiny), tiny, 'compression would save no byte')
})

t.test('the host sets threshold and level; the window has its full size', async t => {
  // Nine kilobytes without repetition, twice: only a window of at least that size compresses the second half.
  const half = randomBytes(6_750).toString('base64')
  const plain = textFrame(half + half)
  const given = new Deflate({ threshold: 10_000, zlibDeflateOptions: { level: 9, windowBits: 9, dictionary: Buffer.from(half), finishFlush: 0 } as object })
  const frame = given.compress(plain)
  t.ok(frame.length < plain.length * 0.6)
  t.equal(inflate(frame), half + half)
  t.equal(given.compress(textFrame('a'.repeat(9_999)))[0], 0x81)
  const text = Array.from({ length: 800 }, (_, n) => `${n} ${n * n}`).join()
  const sizes = [1, 9].map(level => new Deflate({ zlibDeflateOptions: { level } }).compress(textFrame(text)).length)
  t.ok(sizes[1]! < sizes[0]!)
})

t.test('each message is compressed once per mode, for all members', async t => {
  const deflate = new Deflate({})
  let compressions = 0
  const compress = deflate.compress.bind(deflate)
  deflate.compress = frame => {
    compressions++
    return compress(frame)
  }
  const text = 'a'.repeat(2_000)
  const message = delivery(text, deflate)
  t.equal(message.frame(rawText), message.frame(rawText))
  t.equal(compressions, 1)
  t.equal(inflate(message.frame(rawText)), text)
  t.equal(JSON.parse(inflate(message.frame(encodingOf('rooms.v1', true)))).data, text)
  t.equal(compressions, 2)
  t.same(encodings.slice(0, 4).map((_, encoding) => message.frame(encoding as 0)[0]), [0x81, 0x81, 0xc1, 0xc1])
  t.equal(delivery(text).frame(rawText)[0], 0x81, 'a message that does not compress is sent plain')
})
