import t from 'tap'
import fc from 'fast-check'
import { RedisAnswerError } from '../../lib/redis/answer-error.ts'
import { decodeMessage, decodePublication, encodeMessage, encodePublication } from '../../lib/redis/codec.ts'
import { decodeControl, encodeControl } from '../../lib/redis/control-codec.ts'
import { shardsOf } from '../../lib/redis/shards.ts'
import { publication } from '../brokers/start.ts'

t.test('a publication comes back as it was', async t => {
  for (const more of [{}, { uid: 'other' }, { except: 's', key: 'ä', end: 'done' as const }, { key: '' }]) {
    const one = { ...publication('a', { text: 'ü' }), ...more }
    for (const isRelayed of [true, false]) t.same(decodePublication('a', encodePublication(one, isRelayed)), { isRelayed, publication: one })
  }
})

t.test('broken bytes are never read as a publication, and never throw', async t => {
  const bytes = encodePublication({ ...publication('a', 'text'), key: 'key' }, false)
  for (let length = 0; length < bytes.length; length++) t.equal(decodePublication('a', bytes.subarray(0, length)), undefined)
  fc.assert(fc.property(fc.nat({ max: bytes.length - 1 }), fc.nat({ max: 255 }), (at, byte) => {
    const copy = Buffer.from(bytes)
    copy[at] = byte
    const entry = decodePublication('a', copy)
    return entry === undefined || entry.publication.tail.length <= bytes.length
  }), { numRuns: 2_000 })
  const longer = Buffer.from(bytes)
  longer.writeUInt32BE(1, 4)
  t.equal(decodePublication('a', longer), undefined, 'bytes between the strings and the tail')
  longer.writeUInt32BE(bytes.length - 21, 4)
  t.equal(decodePublication('a', longer), undefined, 'a string that begins behind the head')
})

t.test('flags of a newer node, and the strings that stand for them, are skipped', async t => {
  const one = publication('a', 'text')
  const bytes = encodePublication(one, true)
  const newer = (strings: Buffer): Buffer => {
    const tailAt = bytes.length - one.tail.length
    const copy = Buffer.concat([bytes.subarray(0, tailAt), strings, one.tail])
    copy.writeUInt32BE(copy.length, 0)
    copy[9] = bytes[9]! | 32
    return copy
  }
  for (const strings of [Buffer.alloc(0), Buffer.from([0, 2, 65, 66])]) t.same(decodePublication('a', newer(strings)), { isRelayed: true, publication: one })
})

t.test('messages of a channel', async t => {
  const one = encodePublication(publication('a', 1), false)
  t.match(decodeMessage('a', encodeMessage(one)), { position: undefined, entries: [{ isRelayed: false }] })
  t.match(decodeMessage('a', Buffer.concat([Buffer.from('1epochepoch1:7:'), one, one])), { position: { epoch: 'epochepoch1', offset: 7 }, entries: [{}, {}] })
  t.match(decodeMessage('a', Buffer.concat([Buffer.from('1epochepoch1:907,6:'), one])), { position: { epoch: 'epochepoch1', offset: 907 }, after: 6, entries: [{}] })
  for (const text of ['', '2::', '1', '1short:1:', '1epochepoch1:7,:', '1::x']) t.equal(decodeMessage('a', Buffer.from(text)), undefined, text)
})

t.test('messages of nodes', async t => {
  t.same(decodeControl(encodeControl('node', Buffer.from('x'))), { node: 'node', bytes: Buffer.from('x') })
  for (const bytes of [Buffer.from(''), Buffer.from('x..'), Buffer.from([0x63, 0, 9, 1])]) t.equal(decodeControl(bytes), undefined)
})

t.test('an answer names its error, and slots their servers', async t => {
  t.same(['OOM x', '-READONLY x', 'no word'].map(message => new RedisAnswerError(message).word), ['OOM', 'READONLY', 'ERR'])
  t.same(shardsOf(['a', 'a', undefined, 'b', 'a']), [{ id: 'a', slots: [[0, 1], [4, 4]] }, { id: 'b', slots: [[3, 3]] }])
})
