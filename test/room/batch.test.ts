import t from 'tap'
import { Batch, BatchView } from '../../lib/room/batch.ts'

const frame = (text: string): Buffer => Buffer.from(text)

function batchOf (first: string, ...texts: string[]): Batch {
  const batch = new Batch(frame(first))
  for (const text of texts) batch.push(frame(text))
  return batch
}

/** The bytes of a view on the wire, which must be equal for a TCP socket and for ws. */
function read (view: BatchView): string {
  const bytes = view.bytes()?.toString() ?? ''
  if (Buffer.concat(view.frames()).toString() !== bytes) throw new Error(`the frames of a view are not its bytes: ${bytes}`)
  return bytes
}

t.test('a batch is the concatenation of its frames, and is built once', async t => {
  const batch = batchOf('a', 'bc', 'def')
  t.equal(batch.length, 3)
  t.equal(batch.bytes, 6)
  t.equal(batch.whole.toString(), 'abcdef')
  t.equal(batch.whole, batch.whole)
})

t.test('a batch of one frame is that frame, not a copy', async t => {
  const only = frame('a')
  const batch = new Batch(only)
  t.equal(batch.whole, only)
})

t.test('a batch that was read may still grow', async t => {
  const batch = batchOf('a')
  t.equal(batch.whole.toString(), 'a')
  batch.push(frame('b'))
  t.equal(batch.whole.toString(), 'ab')
  t.equal(batch.slice(1, 2).toString(), 'b')
})

t.test('members with buffered bytes share one copy of the batch, outside of the pool', async t => {
  const batch = batchOf('a', 'b')
  const kept = batch.unpooled
  t.equal(kept.toString(), 'ab')
  t.equal(kept.buffer.byteLength, 2)
  t.equal(batch.unpooled, kept)
  batch.push(frame('c'))
  t.equal(batch.unpooled.toString(), 'abc')
})

t.test('a slice consists of whole frames, and shares the bytes of the batch', async t => {
  const batch = batchOf('a', 'bc', 'def')
  const places = [[0, 0, ''], [0, 1, 'a'], [0, 3, 'abcdef'], [1, 2, 'bc'], [1, 3, 'bcdef'], [2, 3, 'def'], [3, 3, '']] as const
  for (const [from, to, text] of places) t.equal(batch.slice(from, to).toString(), text, `${from} to ${to}`)
  t.equal(batch.slice(1, 3).buffer, batch.whole.buffer)
})

t.test('a view without a difference is the batch', async t => {
  const batch = batchOf('a', 'b')
  const view = new BatchView(batch, 0)
  view.catchUp()
  t.equal(read(view), 'ab')
  view.catchUp()
  t.equal(read(view), 'ab', 'a view returns no frame twice')
})

t.test('a view that begins late has no earlier frames', async t => {
  const batch = batchOf('a', 'b')
  const view = new BatchView(batch, batch.length)
  view.catchUp()
  t.equal(view.bytes(), undefined, 'no frame at all')
  t.same(view.frames(), [])
  batch.push(frame('c'))
  view.catchUp()
  t.equal(read(view), 'c')
})

t.test('private frames come after the frames that the batch had at their time', async t => {
  const batch = batchOf('a')
  const view = new BatchView(batch, 0)
  view.add(frame('1'))
  view.add(frame('2'))
  batch.push(frame('b'))
  batch.push(frame('c'))
  view.add(frame('3'))
  batch.push(frame('d'))
  view.catchUp()
  t.equal(read(view), 'a12bc3d')
})

t.test('a single private frame is not copied', async t => {
  const own = frame('1')
  const view = new BatchView(batchOf('a'), 1)
  view.add(own)
  t.equal(view.bytes(), own)
})

t.test('a skipped frame is left out at any place', async t => {
  const batch = batchOf('a')
  const view = new BatchView(batch, 0)
  const push = (text: string): void => { batch.push(frame(text)) }
  view.skipLast()
  push('b')
  push('c')
  view.skipLast()
  push('d')
  view.skipLast()
  view.add(frame('1'))
  push('e')
  push('f')
  view.skipLast()
  view.catchUp()
  t.equal(read(view), 'b1e')
})

t.test('a view whose only frame is skipped is empty', async t => {
  const batch = batchOf('a')
  const view = new BatchView(batch, 0)
  view.skipLast()
  view.catchUp()
  t.equal(view.bytes(), undefined)
})

t.test('views of one batch are independent', async t => {
  const batch = batchOf('a')
  const [one, two] = [new BatchView(batch, 0), new BatchView(batch, 0)]
  one.skipLast()
  two.add(frame('2'))
  batch.push(frame('b'))
  one.add(frame('1'))
  for (const view of [one, two]) view.catchUp()
  t.same([one, two].map(read), ['b1', 'a2b'])
  t.equal(batch.whole.toString(), 'ab')
})
