import { isDeepStrictEqual } from 'node:util'
import { random } from '../helpers/random.ts'
import { each, range, type Complain, type Place } from './attacks.ts'
import { heard, judge, judgeTopics, type Topics, type Verdict } from './model.ts'
import { Mutations, topicFrames } from './mutations.ts'
import { RawPeer, shaped } from './peer.ts'

/** Frames in one write. */
export const perBatch = 6
/** Batches after which a connection is replaced. */
const perConnection = 20

export interface Fuzz {
  /** The seed of all random numbers. */
  seed: number
  /** The number of frames. */
  frames: number
  /** Runs only this batch, to reproduce a fault. */
  only?: number | undefined
  /** The connections have several topics. */
  multiplexed?: boolean
}

/** Answers by topic, because those of several topics have no order among each other. */
function byTopic ({ answers, ...rest }: Verdict): Verdict {
  const topicOf = (line: string): string => line.split(' ')[1]!
  return { ...rest, answers: answers.toSorted((a, b) => topicOf(a) < topicOf(b) ? -1 : Number(topicOf(a) > topicOf(b))) }
}

/** Writes mutated frames, and compares the answers with the model's prediction. Returns the number of each verdict. */
export async function fuzz ({ port }: Place, complain: Complain, { seed, frames, only, multiplexed = false }: Fuzz): Promise<Record<string, number>> {
  const verdicts: Record<string, number> = {}
  const batches = only === undefined ? range(Math.ceil(frames / perBatch)) : [only]
  const idle: { peer: RawPeer, session: string, topics: Topics, used: number }[] = []
  await each(batches, 8, async batch => {
    let link = idle.pop()
    if (link === undefined) {
      const peer = await RawPeer.join(port, multiplexed ? '/lobby' : '/lobby/attacked')
      await peer.until(() => peer.frames.length > 0, 'greeted')
      link = { peer, session: peer.saidSince(0)[0].session, topics: { joined: new Set(), isLoose: false }, used: 0 }
    }
    const { peer, session, topics } = link
    const mutations = new Mutations(random(seed * 1_000_003 + batch), multiplexed ? topicFrames : undefined)
    const end = `batch ${batch}`
    const bytes = Buffer.concat([...range(perBatch).map(() => mutations.next(session)), shaped(JSON.stringify({ type: 'ping', ref: end }))])
    const expected = multiplexed ? judgeTopics(bytes, topics) : judge(bytes, session)
    const before = peer.frames.length
    peer.write(bytes)
    const got = (): ReturnType<typeof heard> => heard(peer.frames.slice(before), multiplexed)
    const isOver = (): boolean => {
      const { answers, pongs, close } = got()
      return close !== undefined || peer.over || (expected.close === undefined && answers.length >= expected.answers.length && pongs.length >= expected.pongs.length)
    }
    const context = `seed ${seed}, batch ${batch}`
    try {
      await peer.until(isOver, `answered (${context})`)
      if (!topics.isLoose && !isDeepStrictEqual(multiplexed ? byTopic(got()) : got(), multiplexed ? byTopic(expected) : expected)) complain(`${context}: ${JSON.stringify(got())} instead of ${JSON.stringify(expected)} to ${bytes.toString('base64').slice(0, 2_000)}`)
    } catch (error) {
      complain(`${(error as Error).message}: ${JSON.stringify(got())} instead of ${JSON.stringify(expected)} to ${bytes.toString('base64').slice(0, 2_000)}`)
    }
    for (const line of [...expected.answers, ...expected.pongs.map(() => 'pong'), expected.close !== undefined && expected.close >= 3000 && expected.close !== 4000 ? 'close 3000-4999' : `close ${expected.close ?? 'none'}`]) {
      const kind = /^(?:pong|hello|close \S+)/.exec(line)?.[0] ?? `${line.split(' ', 1)[0]} ${/FST_ROOMS_\w+|\bok\b/.exec(line)?.[0]}`
      verdicts[kind] = (verdicts[kind] ?? 0) + 1
    }
    // An incomplete last frame would take the next bytes as its end.
    const whole = expected.close === undefined && !topics.isLoose && expected.answers.at(-1) === `ack ${multiplexed ? '- ' : ''}ok ${JSON.stringify(end)}`
    if (whole && ++link.used < perConnection) idle.push(link)
    else peer.destroy()
  })
  for (const { peer } of idle) peer.destroy()
  return verdicts
}
