import { setTimeout as sleep } from 'node:timers/promises'
import type { Statistic } from './topics.ts'

/** Stands for a model: an async iterable of text that ends with its signal. It knows the numbers of the day. */
export async function * assistant (numbers: Statistic[], signal: AbortSignal): AsyncGenerator<string> {
  const last = new Map(numbers.map(({ name, value }) => [name, value]))
  const facts = [...last].map(([name, value]) => {
    const values = numbers.filter(number => number.name === name).map(number => number.value)
    return `${name} stand at ${value}, between ${Math.min(...values)} and ${Math.max(...values)} today`
  })
  const answer = `${facts.length === 0 ? 'There are no numbers yet; add some, and ask again. ' : `Of the numbers, ${facts.join('; ')}. `}` +
    'I am no model, only a function of this server that writes a word now and then. You can reload this page in the middle of a sentence: I go on writing, ' +
    'and the page reads on from the first word. You can cut the network, too, or stop me with the button.'
  for (const word of answer.split(/(?<= )/)) {
    await sleep(60, undefined, { signal })
    yield word
  }
}
