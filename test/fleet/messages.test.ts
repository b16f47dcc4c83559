import t from 'tap'
import { countOf, errorOf } from '../../lib/fleet/answers.ts'
import { answerError, decode, encode, isUserName, maxBytes } from '../../lib/fleet/messages.ts'
import { newNodeId, nodeOf } from '../../lib/fleet/node-id.ts'
import { FST_ROOMS_INVALID_PAYLOAD } from '../../lib/errors.ts'

const from = { id: 's1', user: 'ann' }
const read = (value: unknown) => decode(Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)))

t.test('each message is read as it was written', async t => {
  for (const [type, head, data] of [
    ['send', { id: 1, session: 's', wait: 5 }, null],
    ['ask', { id: 2 ** 40, session: 's', timeout: 5 }, { ä: [1, '__proto__'] }],
    ['cancel', { id: 1 }, undefined],
    ['user', { user: 'ann' }, false],
    ['user', { user: 'ann', topic: 'chat:1' }, 'x'],
    ['direct', { id: 1, session: 's', topic: 'chat:1', from }, 0],
    ['direct', { user: 'ben', topic: 'chat:1', from: { id: 's1' } }, ''],
    ['kick', { user: 'ann', code: 4005, reason: 'kicked' }, undefined],
    ['kick', { id: 1, session: 's', user: 'ann', topic: 'chat:1', code: 1000, reason: '' }, undefined],
    ['reauthorize', { topic: 'chat:1' }, undefined],
    ['reauthorize', { id: 1, session: 's' }, undefined],
    ['stop', { topic: 'run:1' }, undefined],
    ['answer', { id: 1 }, undefined],
    ['answer', { id: 1 }, null],
    ['answer', { id: 1, error: { code: 'X', message: 'y', details: [{ path: '/a', message: 'b' }] } }, undefined]
  ] as const) {
    const bytes = encode(type, head as never, data === undefined ? undefined : JSON.stringify(data))
    const expected = { type, ...head, ...(data === undefined ? {} : { data }) }
    t.same(decode(bytes), expected)
    t.same(decode(new Uint8Array(bytes)), expected)
    t.same(read({ ...JSON.parse(bytes.toString()), newer: 1 }), expected, 'members of a newer node are left out')
  }
})

t.test('a message that is damaged is refused, whatever is wrong with it', async t => {
  const good = {
    send: { id: 1, session: 's', wait: 5, data: 1 },
    ask: { id: 1, session: 's', timeout: 5, data: 1 },
    cancel: { id: 1 },
    user: { user: 'ann', topic: 'chat:1', data: 1 },
    direct: { id: 1, session: 's', topic: 'chat:1', from, data: 1 },
    kick: { id: 1, session: 's', user: 'ann', topic: 'chat:1', code: 4005, reason: 'kicked' },
    reauthorize: { id: 1, session: 's', user: 'ann', topic: 'chat:1' },
    stop: { topic: 'run:1' },
    answer: { id: 1, error: { code: 'X', message: 'y' } }
  }
  const bad: Record<string, unknown[]> = {
    id: [0, -1, 1.5, '1', null, 2 ** 53],
    session: ['', 'x'.repeat(256), 7, null],
    user: ['', 'x'.repeat(256), 7, {}],
    topic: ['', 'a b', '..', 7, 'x'.repeat(256)],
    wait: [0, 2 ** 31, '5', null],
    timeout: [0, 2 ** 31, 1.5],
    from: [null, 's1', [], {}, { id: '' }, { id: 's', user: '' }, { id: 's', user: 1 }],
    code: [1005, 5000, '4005', null],
    reason: ['x'.repeat(124), 7],
    error: [null, 'x', {}, { code: 'X' }, { code: '', message: '' }, { code: 'X', message: 'x'.repeat(4_097) }, { code: 'X', message: '', details: {} }, { code: 'X', message: '', details: [1] }, { code: 'X', message: '', details: [{ path: 1, message: '' }] }, { code: 'X', message: '', details: Array(21).fill({ path: '', message: '' }) }]
  }
  for (const [type, members] of Object.entries(good)) {
    t.notOk('fault' in read({ v: 1, type, ...members }), type)
    for (const [name, values] of Object.entries(bad)) {
      if (!(name in members)) continue
      for (const value of values) t.match(read({ v: 1, type, ...members, [name]: value }), { fault: 'form', detail: `"${name}" of a message of type ${type} is refused` }, `${type}.${name}: ${JSON.stringify(value)?.slice(0, 60)}`)
    }
  }
  for (const [type, { data: _, ...members }] of Object.entries(good) as [string, any][]) {
    if (_ !== undefined) t.match(read({ v: 1, type, ...members }), { fault: 'form', detail: `a message of type ${type} is not whole` })
  }
  for (const members of [{}, { session: 's' }, { id: 1, user: 'ann' }, { id: 1, topic: 'chat:1' }]) {
    t.match(read({ v: 1, type: 'kick', code: 4005, reason: '', ...members }), { fault: 'form' }, JSON.stringify(members))
    t.match(read({ v: 1, type: 'reauthorize', ...members }), { fault: 'form' })
  }
  for (const members of [{}, { session: 's' }, { id: 1 }, { id: 1, session: 's', user: 'ann' }, { id: 1, user: 'ann' }]) {
    t.match(read({ v: 1, type: 'direct', topic: 'a', from, data: 1, ...members }), { fault: 'form' }, JSON.stringify(members))
  }
  for (const text of ['', '{', 'null', '7', '[]', '"x"', '{"v":1,"type":"cancel","id":1}}']) t.match(read(text), { fault: 'form' }, text)
  t.match(decode(Buffer.from([0x7b, 0xff, 0x7d])), { fault: 'form', detail: 'it is not JSON' })
  t.match(decode(Buffer.alloc(maxBytes + 1, ' ')), { fault: 'form', detail: /over the limit/ })
})

t.test('another version and an unknown type are told apart from damage', async t => {
  for (const v of [undefined, 0, 2, '1', { toString: 1 }, 'x'.repeat(1_000)]) t.match(read({ v, type: 'cancel', id: 1 }), { fault: 'version', detail: /^"v" is .{0,40}, and this node reads 1$/ })
  for (const type of [undefined, 'later', '__proto__', 'constructor', { toString: 1 }, 'x'.repeat(1_000)]) t.match(read({ v: 1, type }), { fault: 'type', detail: /^its type .{0,40} is unknown$/ })
})

t.test('errors cross nodes, bounded, and become those of a call on this node', async t => {
  const details = [{ path: '/a', message: 'must be number' }]
  const invalid = Object.assign(new FST_ROOMS_INVALID_PAYLOAD('/a must be number'), { details })
  t.same(answerError(invalid), { code: 'FST_ROOMS_INVALID_PAYLOAD', message: 'invalid payload: /a must be number', details })
  t.match(errorOf(answerError(invalid), 's', 5), { code: 'FST_ROOMS_INVALID_PAYLOAD', message: 'invalid payload: /a must be number', details })
  t.match(errorOf({ code: 'FST_ROOMS_INVALID_PAYLOAD', message: 'other' }, 's', 5), { message: 'invalid payload: other', details: undefined })
  const long = answerError(Object.assign(new Error('x'.repeat(9_999)), { details: Array(50).fill({ path: 'x'.repeat(9_999), message: 1 }) }))
  t.match(long, { code: 'FST_ROOMS_HANDLER_FAILED', message: 'x'.repeat(4_096) })
  t.equal(long.details!.length, 20)
  t.notOk('fault' in decode(encode('answer', { id: 1, error: long })))
  for (const [code, message] of [['NO_SUCH_SESSION', 'there is no session "s" here'], ['SESSION_CLOSED', 'session "s" has closed'], ['NOT_ASKABLE', /"s" is a raw/], ['ASK_TIMEOUT', /within 5 ms/], ['HANDLER_FAILED', 'the server failed on this message']] as const) {
    t.match(errorOf({ code: `FST_ROOMS_${code}`, message: 'secret' }, 's', 5), { code: `FST_ROOMS_${code}`, message })
  }
  t.match(errorOf({ code: 'TypeError', message: 'secret' }, 's', 5), { code: 'FST_ROOMS_HANDLER_FAILED' })
  t.same([3, 0, -1, 1.5, '3', null, undefined].map(countOf), [3, 0, 0, 0, 0, 0, 0])
})

t.test('a message that is too large is not sent', async t => {
  t.throws(() => encode('user', { user: 'ann' }, JSON.stringify('x'.repeat(maxBytes))), { code: 'FST_ROOMS_INVALID_PAYLOAD', message: /over the limit of 16777216/ })
})

t.test('a session id names its node', async t => {
  const uuid = '0b6cf3a2-5d1e-4f0a-9b7c-2f8e6d4c1a35'
  const ids = Array.from({ length: 100 }, () => newNodeId(false))
  t.equal(new Set(ids).size, 100)
  for (const id of ids) t.equal(nodeOf(`${id}-${uuid}`), id)
  t.match(newNodeId(true), /^[0-9a-f-]{36}$/)
  for (const other of [uuid, `${ids[0]}-`, `${ids[0]}x-${uuid}`, `${ids[0]}-${uuid}0`, `Ä${ids[0]!.slice(1)}-${uuid}`, 7, null]) t.equal(nodeOf(other), undefined)
  t.same(['a', 'x'.repeat(255), '', 'x'.repeat(256), 7].map(isUserName), [true, true, false, false, false])
})
