import t from 'tap'
import { Changes } from '../../lib/presence/changes.ts'
import type { PresenceChange, PresenceOutcome } from '../../types/index.ts'

const turns = async (count = 3): Promise<void> => { for (let n = 0; n < count; n++) await new Promise(resolve => setImmediate(resolve)) }

/** Changes whose broker answers when the test says so. */
function createChanges () {
  const sent: PresenceChange[][] = []
  const answers: { resolve: (outcomes: PresenceOutcome[]) => void, reject: (error: Error) => void }[] = []
  const changes = new Changes(batch => {
    sent.push(batch)
    return new Promise((resolve, reject) => { answers.push({ resolve, reject }) })
  })
  const told: string[] = []
  const set = (session: string, info?: string, isJoin = true): void => {
    changes.set({ topic: 'chat', session, type: 'set', ...(info === undefined ? {} : { info }) }, isJoin ? () => { told.push(`+${session}`) } : undefined)
  }
  const leave = (session: string): void => { changes.leave({ topic: 'chat', session, type: 'leave' }, () => { told.push(`-${session}`) }) }
  const answer = async (): Promise<void> => {
    answers.shift()!.resolve(sent.at(-1)!.map(() => ({})))
    await turns()
  }
  const names = (): string[] => sent.at(-1)!.map(({ session, type, info }) => `${type === 'set' ? '+' : '-'}${session}${info ?? ''}`)
  return { changes, sent, answers, told, set, leave, answer, names }
}

t.test('changes of one turn are one call, and those of the time of a call are the next one', async t => {
  const { sent, told, set, leave, answer, names } = createChanges()
  set('a')
  set('b')
  await turns()
  t.same(names(), ['+a', '+b'])
  set('c')
  set('c', '1', false)
  leave('a')
  set('short')
  leave('short')
  set('b', '2', false)
  leave('b')
  await turns()
  t.equal(sent.length, 1, 'one call at a time')
  await answer()
  t.same(told, ['+a', '+b'])
  t.same(names(), ['+c1', '-a', '-b'], 'the newest of a session, in order')
  await answer()
  t.same(told, ['+a', '+b', '+c', '-a', '-b'])
  set('d')
  leave('d')
  await turns()
  t.equal(sent.length, 2, 'nothing is left to be sent')
})

t.test('a call that fails is repeated before later changes, at once when the broker is back', async t => {
  const { changes, sent, answers, told, set, leave, answer, names } = createChanges()
  changes.resume()
  set('a')
  await turns()
  answers.shift()!.reject(new Error('no'))
  leave('a')
  await turns()
  t.equal(sent.length, 1)
  changes.resume()
  await turns()
  t.same(names(), ['+a'])
  answers.shift()!.reject(new Error('no'))
  for (let n = 0; sent.length < 3 && n < 1_000; n++) await new Promise(resolve => setTimeout(resolve, 5))
  t.same(names(), ['+a'], 'or after a while')
  await answer()
  t.same(names(), ['-a'])
  await answer()
  t.same(told, ['+a', '-a'])
})

t.test('a call has at most 1,000 changes', async t => {
  const { sent, set, answer } = createChanges()
  for (let n = 0; n < 1_001; n++) set(`s${n}`)
  await turns()
  await answer()
  t.same(sent.map(({ length }) => length), [1_000, 1])
})

t.test('the end waits for the answers, up to a time', async t => {
  const { changes, answers, set, answer } = createChanges()
  await changes.settled(60_000)
  set('a')
  const settled = changes.settled(60_000)
  await turns()
  await answer()
  await settled
  set('b')
  await changes.settled(5)
  const closed = changes.settled(60_000)
  changes.close()
  await closed
  answers.shift()!.reject(new Error('late'))
  set('c')
  await turns()
  t.equal(answers.length, 0, 'nothing is sent after the end')
})
