import type { Test } from 'tap'
import type { Broker, BrokerState, Outcome, Position, Publication } from '../../types/index.ts'

interface Entry { topic: string, publication: Publication, position: Position | undefined }

/** Starts a broker that records the entries for its node. Closed with its test. */
export async function startBroker (t: Test, broker: Broker, node = 'node-1') {
  const entries: Entry[] = []
  const states: BrokerState[] = []
  await broker.start(node, {
    entry: (topic, publication, position) => { entries.push({ topic, publication, position }) },
    control: () => {},
    state: state => { states.push(state) },
    lost: () => {}
  })
  t.teardown(() => broker.close())
  return { broker, entries, states }
}

let count = 0

export function publication (topic: string, payload: unknown = null, node = 'node-1'): Publication {
  const json = JSON.stringify(payload)
  return { v: 1, uid: `${node}-${++count}`, node, topic, tail: Buffer.from(`"data":${json}}`), payloadLength: Buffer.byteLength(json), deadline: Date.now() + 5_000 }
}

/** Tests of the contract of all brokers. `create` returns a broker that nothing else uses. */
export function brokerSuite (t: Test, create: () => Broker): void {
  t.test('a started broker reports its state', async t => {
    const { states } = await startBroker(t, create())
    t.equal(states.at(-1), 'up')
  })

  t.test('a broker starts only once', async t => {
    const { broker } = await startBroker(t, create())
    await t.rejects(startBroker(t, broker), { code: 'FST_ROOMS_INVALID_OPTION' })
  })

  t.test('publications of one topic arrive in the order of their acceptance', async t => {
    const { broker, entries } = await startBroker(t, create())
    await broker.attach(['a'])
    const publications = [0, 1, 2, 3, 4].map(n => publication('a', n))
    for (const one of publications.slice(0, 3)) t.match(await broker.publish([one]), [{ state: 'ok' }])
    t.match(await broker.publish(publications.slice(3)), [{ state: 'ok' }, { state: 'ok' }], 'a batch has one outcome for each publication')
    t.same(entries.map(entry => entry.publication.uid), publications.map(one => one.uid))
  })

  t.test('a publication arrives unchanged, under its own topic', async t => {
    const { broker, entries } = await startBroker(t, create())
    await broker.attach(['a', 'b'])
    const one = { ...publication('b', { text: 'ä' }), except: 's1' }
    await broker.publish([one])
    t.equal(entries.length, 1)
    t.equal(entries[0]!.topic, 'b')
    t.same(entries[0]!.publication, one)
  })

  t.test('a topic that is not attached delivers nothing, and publishing to it succeeds', async t => {
    const { broker, entries } = await startBroker(t, create())
    await broker.attach(['a'])
    t.match(await broker.publish([publication('b')]), [{ state: 'ok' }])
    t.same(entries, [])
  })

  t.test('a topic delivers nothing after detach, and other topics stay attached', async t => {
    const { broker, entries } = await startBroker(t, create())
    await broker.attach(['a', 'b'])
    await broker.detach(['a'])
    await broker.publish([publication('a'), publication('b')])
    t.same(entries.map(({ topic }) => topic), ['b'])
    await broker.detach(['a', 'never'])
  })

  t.test('attach and detach of one topic take effect in the order of the calls', async t => {
    const { broker, entries } = await startBroker(t, create())
    await Promise.all([broker.attach(['a']), broker.detach(['a']), broker.attach(['a'])])
    await broker.publish([publication('a')])
    t.equal(entries.length, 1)
    await Promise.all([broker.detach(['a']), broker.attach(['a']), broker.detach(['a'])])
    await broker.publish([publication('a')])
    t.equal(entries.length, 1)
  })

  t.test('a closed broker delivers nothing', async t => {
    const { broker, entries } = await startBroker(t, create())
    await broker.attach(['a'])
    await broker.close()
    await broker.publish([publication('a')])
    await broker.close()
    t.same(entries, [])
  })
}

/** Tests of the contract of brokers with positions. */
export function positionSuite (t: Test, create: () => Broker): void {
  t.test('a position has a random epoch of at least 64 bits and an offset that grows by one', async t => {
    const { broker, entries } = await startBroker(t, create())
    const [a, b] = await broker.attach(['a', 'b'])
    t.match(a!.epoch, /^[A-Za-z0-9]{11,64}$/)
    t.not(a!.epoch, b!.epoch)
    const outcomes: Outcome[] = []
    for (let i = 0; i < 3; i++) outcomes.push(...await broker.publish([publication('a')]))
    const expected = [1, 2, 3].map(step => ({ epoch: a!.epoch, offset: a!.offset + step }))
    t.same(outcomes.map(({ position }) => position), expected)
    t.same(entries.map(({ position }) => position), expected, 'the outcome and the entry have the same position')
    t.same(await broker.publish([publication('b')]), [{ state: 'ok', position: { epoch: b!.epoch, offset: b!.offset + 1 } }], 'each topic counts on its own')
  })

  t.test('attach returns the last position', async t => {
    const { broker } = await startBroker(t, create())
    const [before] = await broker.attach(['a'])
    await broker.publish([publication('a')])
    t.same(await broker.attach(['a']), [{ epoch: before!.epoch, offset: before!.offset + 1 }])
    await broker.publish([publication('a')])
    t.same(before!.offset + 2, (await broker.attach(['a']))[0]!.offset, 'an earlier result does not change afterwards')
  })
}
