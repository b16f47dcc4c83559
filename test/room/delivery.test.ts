import t from 'tap'
import type { Publication } from '../../types/index.ts'
import { Outgoing } from '../../lib/feed/outgoing.ts'
import { Delivery } from '../../lib/room/delivery.ts'
import { Room } from '../../lib/room/room.ts'
import type { MemberSession } from '../../lib/session/session.ts'
import { envelopes } from '../../lib/transport/envelope.ts'
import { payloadOf } from '../../lib/transport/ws/frame.ts'
import { tailEnd } from '../../lib/protocol/server-frames.ts'
import { FakeStream, fakeDefinition, fakeDelivery, fakeMember, fakePorts } from '../helpers/fakes.ts'

const origin = { uid: 'u1', node: 'n1', topic: 'news', deadline: 0 }

t.test('a publication has the offset of its payload in bytes', async t => {
  const publication = new Outgoing({ ...origin, except: 's9' }, '"ü"', tailEnd('s1', 'Jö'))
  t.match(publication, { v: 1, uid: 'u1', node: 'n1', topic: 'news', deadline: 0, except: 's9', payloadLength: 4, local: 0 })
  t.equal(publication.tail.toString(), '"data":"ü","from":"s1","user":"Jö"}')
  t.equal(new Outgoing(origin, '1').except, undefined)
  const without = new Delivery(publication, undefined, false)
  t.equal(without.id, undefined)
  t.equal(without.json, '"ü"')
  t.equal(payloadOf(without.frame(0)).toString(), '{"type":"message","data":"ü","from":"s1","user":"Jö"}')
  t.equal(payloadOf(without.frame(1)).toString(), '"ü"', 'a typed topic keeps the quotes')
})

t.test('a retained delivery takes no more memory than its frames', async t => {
  const delivery = fakeDelivery('1')
  t.ok(delivery.frame(0).buffer.byteLength > 100, 'a slice of the pool')
  const text = delivery.frame(0).toString()
  delivery.retain()
  t.equal(delivery.frame(0).toString(), text)
  for (const encoding of [0, 1] as const) {
    const frame = delivery.frame(encoding)
    t.ok(frame.buffer.byteLength <= 2 * frame.length)
    t.equal(delivery.frame(encoding), frame)
  }
})

t.test('raw mode sends a string of an untyped topic as its text, and other JSON unchanged', async t => {
  const { direct } = envelopes.raw
  t.equal(direct('"a\\nb\\u00e4"', true), 'a\nbä')
  t.equal(direct('""', true), '')
  for (const json of ['1', 'null', '["a"]', '{"a":"b"}']) t.equal(direct(json, true), json)
  t.equal(direct('"a"', false), '"a"')
})

t.test('all members of a mode get the same bytes, which are built once', async t => {
  const room = new Room<MemberSession>('news', fakeDefinition(), fakePorts())
  const transports = Array.from({ length: 4 }, () => new FakeStream())
  const members = transports.map((transport, index) => fakeMember(`s${index}`, index % 2 === 0 ? 'rooms.v1' : 'rooms.raw', transport))
  for (const { session } of members) room.add(session)
  const write = (): Buffer[] => {
    room.flush(1)
    for (const { written } of transports) t.equal(written.length, 1, 'one write')
    return transports.map(({ written }) => written.splice(0)[0]!)
  }
  room.deliver(fakeDelivery('"hi"'))
  const single = write()
  t.equal(single[0], single[2], 'the same buffer')
  t.equal(single[1], single[3], 'the same buffer')
  t.equal(payloadOf(single[0]!).toString(), '{"type":"message","id":"e-1","data":"hi"}')
  t.equal(payloadOf(single[1]!).toString(), 'hi')
  room.deliver(fakeDelivery('"hi"'))
  room.deliver(fakeDelivery('"ho"'))
  const double = write()
  t.equal(double[0], double[2], 'the same buffer')
  t.equal(double[1], double[3], 'the same buffer')
  t.equal(double[1]!.toString('latin1'), '\x81\x02hi\x81\x02ho')
  for (const { socket } of members) t.same(socket.sent, [], 'no frame goes through ws')
})

t.test('a copy of a publication has all fields of the original', async t => {
  const publication = new Outgoing({ ...origin, except: 's9', key: 'k' }, '"ü"', tailEnd('s1', 'Jö'))
  const copy: Publication = { ...publication.toPublication() }
  t.same(new Delivery(copy, undefined, false).frame(0), new Delivery(publication, undefined, false).frame(0))
  t.equal(new Delivery(copy, undefined, false).json, '"ü"')
})
