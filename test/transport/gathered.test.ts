import t from 'tap'
import { GatheredWrites, OwnFrames } from '../../lib/transport/gathered.ts'

t.test('peers that get the same runs in a turn share their joined bytes, and a run of one peer alone is its own', async t => {
  let marks = 0
  const written: string[] = []
  const writes = new GatheredWrites(() => { marks++ })
  const peer = (name: string) => ({ writeGathered: () => { written.push(name) } })
  const [a, b, own] = ['a', 'b', 'own'].map(text => new OwnFrames(Buffer.from(text))) as [OwnFrames, OwnFrames, OwnFrames]
  const one = writes.begin(peer('one'), a).with(b)
  const two = writes.begin(peer('two'), a).with(b)
  const three = writes.begin(peer('three'), a).with(own)
  t.equal(one, two)
  t.equal(one.whole, two.whole)
  t.equal(String(one.whole), 'ab')
  t.equal(String(three.whole), 'aown')
  t.equal(String(three.unpooled), 'aown')
  t.equal(three.bytes, 4)
  t.same(own.frames.map(String), ['own'])
  t.equal(marks, 3)
  writes.write()
  writes.write()
  t.same(written, ['one', 'two', 'three'])
})
