import t from 'tap'
import * as frames from '../../lib/protocol/server-frames.ts'
import { checkFrame } from '../../lib/protocol/client-frames.ts'

const fault = (value: unknown) => checkFrame(value) as { fault: string, ref?: unknown }

t.test('a message frame is a short head before bytes that all members share', async t => {
  const tail = `${frames.tailStart}[1]${frames.tailEnd('s1', 'u"1')}`
  t.equal(frames.messageHead('e-1') + tail, '{"type":"message","id":"e-1","data":[1],"from":"s1","user":"u\\"1"}')
  t.equal(frames.messageHead(undefined) + tail, '{"type":"message","data":[1],"from":"s1","user":"u\\"1"}')
  t.equal(frames.messageHead('e-1') + frames.tailStart + '1' + frames.tailEnd(), '{"type":"message","id":"e-1","data":1}')
})

t.test('a key stands at the end of a message', async t => {
  t.equal(frames.messageHead('e-1') + frames.tailStart + '1' + frames.withKey(frames.tailEnd('s1'), 'k"'), '{"type":"message","id":"e-1","data":1,"from":"s1","key":"k\\""}')
})

t.test('members of a message come in the order type, topic, id, data, the rest', async t => {
  t.equal(frames.direct('{"a":1}', 's1', 'u1', 's7'), '{"type":"direct","data":{"a":1},"from":"s1","user":"u1","ref":"s7"}')
  t.equal(frames.direct('1'), '{"type":"direct","data":1}')
  t.equal(frames.hello({ v: 1, session: 's', topic: 't', heartbeat: 0, maxPayload: 9, id: 'e-1', recovered: true, replayed: 0 }),
    '{"type":"hello","id":"e-1","v":1,"session":"s","topic":"t","heartbeat":0,"maxPayload":9,"recovered":true,"replayed":0}')
  t.equal(frames.hello({ v: 1, session: 's', topic: 't', heartbeat: 0, maxPayload: 9 }), '{"type":"hello","v":1,"session":"s","topic":"t","heartbeat":0,"maxPayload":9}')
})

t.test('answers carry the ref and leave out undefined members', async t => {
  t.equal(frames.ackOk(7), '{"type":"ack","ref":7,"ok":true}')
  t.equal(frames.ackOk('r', 'e-1', null), '{"type":"ack","ref":"r","ok":true,"id":"e-1","data":null}')
  t.equal(frames.ackOk(7, 'e-1', 1, true), '{"type":"ack","ref":7,"ok":true,"id":"e-1","data":1,"duplicate":true}')
  const error = { code: 'FST_ROOMS_FORBIDDEN', message: 'no' }
  t.equal(frames.ackError(7, error), '{"type":"ack","ref":7,"ok":false,"error":{"code":"FST_ROOMS_FORBIDDEN","message":"no"}}')
  t.equal(frames.error(error), '{"type":"error","error":{"code":"FST_ROOMS_FORBIDDEN","message":"no"}}')
  t.equal(frames.gap({ count: 2, reason: 'slow', from: 'e-1', to: 'e-3' }), '{"type":"gap","count":2,"reason":"slow","from":"e-1","to":"e-3"}')
  t.equal(frames.bye({ code: 1001, reason: 'going_away', retry: { min: 1, max: 2 }, id: 'e-1' }), '{"type":"bye","code":1001,"reason":"going_away","retry":{"min":1,"max":2},"id":"e-1"}')
})

t.test('a presence frame is a state, a difference or a count', async t => {
  t.equal(frames.presenceState(1, [{ session: 's', user: 'u', info: 1 }]), '{"type":"presence","count":1,"state":[{"session":"s","user":"u","info":1}]}')
  t.equal(frames.presenceDiff(2, [{ session: 's' }], []), '{"type":"presence","count":2,"join":[{"session":"s"}]}')
  t.equal(frames.presenceDiff(1, [], [{ session: 's' }]), '{"type":"presence","count":1,"leave":[{"session":"s"}]}')
  t.equal(frames.presenceCount(250), '{"type":"presence","count":250}')
})

t.test('a valid frame is taken unchanged, unknown members included', async t => {
  const sound = [
    { type: 'message', data: null, more: 1 },
    { type: 'message', data: 1, ref: 'r'.repeat(64) },
    { type: 'message', data: 1, ref: Number.MIN_SAFE_INTEGER },
    { type: 'message', data: 1, key: 'k'.repeat(255) },
    { type: 'message', data: 1, mid: 'm' },
    { type: 'message', data: 1, key: '😀', mid: '😀' },
    { type: 'message', data: 1, mid: 'm'.repeat(64) },
    { type: 'ping', mid: 7 },
    { type: 'direct', to: 'x', data: 1 },
    { type: 'direct', to: 'user:x', data: 1, ref: 0 },
    { type: 'ack', ref: 's1' },
    { type: 'presence' },
    { type: 'presence', info: {} },
    { type: 'ping', ref: 1 },
    { type: 'ping' }
  ]
  for (const frame of sound) t.equal(checkFrame(frame), frame, JSON.stringify(frame))
})

t.test('values other than objects are not frames', async t => {
  for (const value of [null, 1, 'x', true, [], [{ type: 'ping' }]]) t.same(fault(value), { fault: 'a frame is a JSON object; a frame looks like {"type":"message","data":…}' })
})

t.test('an invalid ref is a fault without a ref', async t => {
  for (const ref of ['', 'r'.repeat(65), {}, [], null, true, 1.5, Infinity, Number.NaN, 2 ** 53]) {
    t.same(fault({ type: 'ping', ref }), { fault: '"ref" is a string of 1 to 64 characters or a safe integer' }, String(ref))
  }
})

t.test('a fault names the mistake, and the ref if there is one', async t => {
  t.same(fault({ type: 'message', ref: 7 }), { fault: '"data" is missing', ref: 7 })
  t.same(fault({ type: 'message' }), { fault: '"data" is missing' })
  t.same(fault({ type: 'direct', to: 'x', ref: 'r' }), { fault: '"data" is missing', ref: 'r' })
  for (const to of [undefined, null, 7, '', 'user:', ['x']]) t.same(fault({ type: 'direct', to, data: 1, ref: 7 }), { fault: '"to" is a session id or "user:" and a user', ref: 7 })
  for (const token of [undefined, null, 7, '', ['x'], 'x'.repeat(8_193)]) t.same(fault({ type: 'auth', token, ref: 7 }), { fault: '"token" is a string of 1 to 8192 characters', ref: 7 })
  t.same(fault({ type: 'message', data: 1, key: 'half\udfff' }), { fault: '"key" is a string of 1 to 255 characters' })
  for (const mid of [null, 7, '', ['x'], 'x'.repeat(65), 'half\ud800']) t.same(fault({ type: 'message', data: 1, mid, ref: 7 }), { fault: '"mid" is a string of 1 to 64 characters', ref: 7 })
  t.same(fault({ type: 'ack' }), { fault: '"ref" is missing' })
  t.same(fault({ data: 1, ref: 7 }), { fault: '"type" is missing; a frame looks like {"type":"message","data":…}', ref: 7 })
  t.same(fault({ type: 7 }), { fault: '"type" is missing; a frame looks like {"type":"message","data":…}' })
  t.same(fault({ type: 'x"'.repeat(40) }), { fault: `the type ${JSON.stringify('x"'.repeat(16))} is not known here` }, 'a long type is truncated')
  for (const type of ['constructor', '__proto__', 'toString', 'join', 'expiring', 'hello']) t.match(fault({ type }).fault, 'is not known here')
})
