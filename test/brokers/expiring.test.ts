import t from 'tap'
import { Expiring } from '../../lib/brokers/expiring.ts'

t.test('a value is remembered for its time, and as one of the newest', async t => {
  const short = new Expiring<number>(0, 10)
  short.add('a', 1)
  t.equal(short.find('a'), undefined)
  short.add('b', 2)
  t.equal(short.size, 0, 'what has expired takes no place')
  const few = new Expiring<number | undefined>(60_000, 2)
  for (const [name, value] of [['a', 1], ['b', 2], ['a', 3], ['c', undefined]] as const) few.add(name, value)
  t.match([few.find('a')?.value, few.find('b'), few.find('c')], [3, undefined, { value: undefined }])
  few.delete('a')
  t.equal(few.find('a'), undefined)
  few.clear()
  t.equal(few.size, 0)
})
