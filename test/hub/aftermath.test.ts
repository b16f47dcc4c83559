import t from 'tap'
import { Aftermath } from '../../lib/hub/aftermath.ts'

t.test('tasks that a task adds run after it, before the outermost call returns', t => {
  const aftermath = new Aftermath()
  const seen: string[] = []
  aftermath.run(() => {
    aftermath.run(() => {
      aftermath.run(() => { seen.push('third') })
      seen.push('second')
    })
    seen.push('first')
  })
  t.same(seen, ['first', 'second', 'third'])
  aftermath.run(() => { seen.push('later') })
  t.equal(seen.at(-1), 'later')
  t.end()
})

t.test('a task that throws does not keep others from running, each once', async t => {
  const aftermath = new Aftermath()
  const seen: string[] = []
  t.throws(() => {
    aftermath.run(() => {
      aftermath.run(() => { seen.push('second') })
      aftermath.run(() => { seen.push('third') })
      throw new Error('first')
    })
  }, /^first$/)
  aftermath.run(() => { seen.push('fourth') })
  t.same(seen, ['second', 'third', 'fourth'], 'the next call runs the remaining tasks')
  await new Promise(resolve => setImmediate(resolve))
  t.equal(seen.length, 3)

  t.throws(() => {
    aftermath.run(() => {
      aftermath.run(() => { seen.push('sixth') })
      throw new Error('fifth')
    })
  }, /^fifth$/)
  t.equal(seen.length, 3)
  await new Promise(resolve => setImmediate(resolve))
  t.equal(seen.at(-1), 'sixth', 'without another call the next turn runs them')
})
