import t from 'tap'
import { checkTopicFrame } from '../../lib/protocol/client-frames.ts'

t.test('faults of frames on a connection of several topics name ref and topic, if they can be read', async t => {
  const cases: [unknown, object][] = [
    [null, { fault: /object/ }],
    [{ type: 'message', topic: 'a', ref: 1 }, { fault: /"data" is missing/, ref: 1, topic: 'a' }],
    [{ type: 'message', data: 1 }, { fault: /"topic" is missing/ }],
    [{ type: 'message', data: 1, ref: 2 }, { fault: /"topic" is missing/, ref: 2 }],
    [{ type: 'message', data: 1, topic: 5 }, { fault: /"topic" is a string/ }],
    [{ type: 'join', topic: 'a', since: '?' }, { fault: /"since"/, topic: 'a' }],
    [{ type: 'join', topic: 'a', presence: 1, ref: 3 }, { fault: /"presence"/, ref: 3, topic: 'a' }],
    [{ type: 'leave', topic: 'a', ref: {} }, { fault: /"ref"/, topic: 'a' }]
  ]
  for (const [frame, fault] of cases) t.match(checkTopicFrame(frame), fault, JSON.stringify(frame))
  for (const frame of [{ type: 'ping' }, { type: 'auth', token: 'x' }, { type: 'join', topic: 'a', since: '0', presence: false }, { type: 'leave', topic: 'a' }]) t.equal(checkTopicFrame(frame), frame)
})
