import t from 'tap'
import { negotiate } from '../../lib/protocol/subprotocols.ts'
import { formatPosition, parsePosition, sincePattern } from '../../lib/protocol/position.ts'
import { isTopicName, maxTopicLength } from '../../lib/protocol/topic-name.ts'

t.test('the first known mode in an offer is selected', async t => {
  t.equal(negotiate(undefined), 'rooms.v1', 'no offer')
  t.equal(negotiate('rooms.raw'), 'rooms.raw')
  t.equal(negotiate('rooms.raw, rooms.v1'), 'rooms.raw')
  t.equal(negotiate('mqtt ,rooms.v1,rooms.raw'), 'rooms.v1')
  t.equal(negotiate('bearer.eyJ, rooms.raw'), 'rooms.raw')
})

t.test('an offer without a known mode selects nothing', async t => {
  for (const header of ['', 'mqtt', 'bearer.eyJ', 'rooms.v2', 'ROOMS.V1', 'rooms.v1x']) t.equal(negotiate(header), null, header)
})

t.test('a position survives being written and read', async t => {
  const position = { epoch: '0123456789abcdef', offset: 1042 }
  const id = formatPosition(position)
  t.equal(id, '0123456789abcdef-1042')
  t.same(parsePosition(id), position)
})

t.test('0 and latest name no position', async t => {
  t.equal(parsePosition('0'), null)
  t.equal(parsePosition('latest'), null)
})

t.test('any other text names no position', async t => {
  for (const id of ['', 'abc', '0123456789-1', '0123456789abcdef-', '0123456789abcdef-x', '0123456789abcdef-1.5', `0123456789abcdef-${'9'.repeat(16)}`, '0123456789abcdef-1\n']) t.equal(parsePosition(id), null, id)
})

t.test('since accepts ids, 0 and latest, and nothing else', async t => {
  const pattern = new RegExp(sincePattern)
  for (const id of ['0', 'latest', '0123456789abcdef-0', `${'a'.repeat(64)}-${'9'.repeat(15)}`]) t.ok(pattern.test(id), id)
  for (const id of ['', '1', '00', 'newest', 'latest ', '0123456789-1', '0123456789abcdef', '0123456789abcdef-', '0123456789abcdef--1', `${'a'.repeat(65)}-1`, `0123456789abcdef-${'9'.repeat(16)}`, '0123456789abcdef-1\n']) t.notOk(pattern.test(id), id)
})

t.test('a topic name is 1 to 255 characters of letters, digits and _ . : ~ -', async t => {
  for (const name of ['a', 'chat:lobby', 'A-Z_0.9~', '...', '.a', '__proto__', 'constructor', 'x'.repeat(maxTopicLength)]) t.ok(isTopicName(name), name)
  for (const name of ['', 'x'.repeat(maxTopicLength + 1), 'a b', 'a/b', 'ä', 'a\n', '*', 'a%3A', '.', '..', undefined, null, 7, ['a'], {}]) t.notOk(isTopicName(name), String(name))
})
