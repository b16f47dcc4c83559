import type { Test } from 'tap'
import fc from 'fast-check'
import type { Broker, BrokerState, HistoryPage, Outcome, Position, Publication, Retention } from '../../types/index.ts'

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
const plainPublication = publication

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

  t.test('an end is kept like a message, and nothing is accepted behind it', async t => {
    const { broker, entries } = await startBroker(t, create())
    const retention: Retention = { size: 10, bytes: 10_000, ttl: 60_000, latest: false }
    const end: Publication = { ...publication('a'), tail: Buffer.from('"reason":"done","data":1}'), payloadLength: 0, end: 'done', retention }
    const query = { limit: 10, bytes: 10_000, retention }
    t.equal((await broker.history!('a', query)).ended, undefined)
    const [before] = await broker.attach(['a'], retention)
    t.equal(before?.ended, undefined)
    await broker.publish([{ ...publication('a', 1), retention }])
    const [outcome] = await broker.publish([end])
    t.match(outcome, { state: 'ok', position: { offset: 2 } })
    t.same(entries.at(-1)!.publication.end, 'done')
    t.match(await broker.publish([{ ...publication('a', 2), retention }, { ...end, uid: 'again' }]), [{ state: 'ended' }, { state: 'ended' }])
    t.equal(entries.length, 2)
    const page = await broker.history!('a', query)
    t.match(page, { position: { offset: 2 }, ended: 'done', messages: [{ offset: 1 }, { offset: 2, payloadLength: 0 }] })
    t.equal(page.messages[1]!.tail.toString(), '"reason":"done","data":1}')
    await broker.detach(['a'])
    t.match(await broker.attach(['a'], retention), [{ offset: 2, ended: 'done' }])
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

/**
 * Tests of the contract of brokers with positions.
 * @param retention - of the topics, for a broker that gives positions only to those that keep messages
 */
export function positionSuite (t: Test, create: () => Broker, retention?: Retention): void {
  const publication = (topic: string): Publication => ({ ...plainPublication(topic), ...(retention === undefined ? {} : { retention }) })

  t.test('a position has a random epoch of at least 64 bits and an offset that grows by one', async t => {
    const { broker, entries } = await startBroker(t, create())
    const [a, b] = await broker.attach(['a', 'b'], retention)
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
    const [before] = await broker.attach(['a'], retention)
    await broker.publish([publication('a')])
    t.same(await broker.attach(['a'], retention), [{ epoch: before!.epoch, offset: before!.offset + 1 }])
    await broker.publish([publication('a')])
    t.same(before!.offset + 2, (await broker.attach(['a'], retention))[0]!.offset, 'an earlier result does not change afterwards')
  })
}

const kept: Retention = { size: 100, bytes: 1_000_000, ttl: 60_000, latest: false }

function payloads ({ messages }: HistoryPage): unknown[] {
  return messages.map(({ tail, payloadLength }) => JSON.parse(tail.toString('utf8', 7, 7 + payloadLength)))
}

/** Tests of the contract of brokers that keep messages. */
export function historySuite (t: Test, create: () => Broker): void {
  t.test('a topic that keeps messages has positions without members, from the first reading, join or publication on', async t => {
    const { broker } = await startBroker(t, create())
    const { position } = await broker.history!('read', { limit: 1, bytes: 1_000, retention: kept })
    t.equal(position.offset, 0)
    t.match(await broker.publish([{ ...publication('read', 1), retention: kept }]), [{ position: { epoch: position.epoch, offset: 1 } }])
    const [attached] = await broker.attach(['read'], kept)
    t.same(attached, { epoch: position.epoch, offset: 1 })
    await broker.detach(['read'])
    t.match(await broker.publish([{ ...publication('read', 2), retention: kept }]), [{ position: { epoch: position.epoch, offset: 2 } }])
    t.same((await broker.attach(['read'], kept))[0], { epoch: position.epoch, offset: 2 })
  })

  t.test('kept messages are those of the model: by number, bytes and key, for every reading', async t => {
    let topics = 0
    const { broker } = await startBroker(t, create())
    await fc.assert(fc.asyncProperty(
      fc.record({ size: fc.oneof(fc.constant(Infinity), fc.integer({ min: 1, max: 12 })), bytes: fc.integer({ min: 1, max: 4_000 }), latest: fc.boolean() }),
      fc.array(fc.record({ length: fc.integer({ min: 0, max: 120 }), key: fc.option(fc.constantFrom('a', 'b', 'ä', ''), { nil: undefined }) }), { maxLength: 40 }),
      fc.record({ after: fc.option(fc.integer({ min: 0, max: 45 }), { nil: undefined }), limit: fc.integer({ min: 1, max: 20 }), bytes: fc.integer({ min: 0, max: 600 }) }),
      async (bounds, messages, query) => {
        const retention = { ...bounds, ttl: 60_000 }
        const topic = `model-${++topics}`
        let model: { offset: number, size: number, weight: number, key: string | undefined, data: string }[] = []
        let from = 0
        let offset = 0
        for (const { length, key } of messages) {
          const one = publication(topic, 'x'.repeat(length))
          await broker.publish([{ ...one, ...(key === undefined ? {} : { key }), retention }])
          offset++
          const drop = (gone: { offset: number }): void => {
            model = model.filter(other => other !== gone)
            from = Math.max(from, gone.offset)
          }
          if (retention.latest) for (const other of model.filter(other => other.key === key)) drop(other)
          model.push({ offset, size: one.tail.length, weight: one.tail.length + (retention.latest ? 320 + 2 * (key?.length ?? 0) : 0), key, data: 'x'.repeat(length) })
          while (model.length > retention.size || (model.length > 0 && model.reduce((sum, { weight }) => sum + weight, 0) > retention.bytes)) drop(model[0]!)
        }
        const behind = query.after === undefined ? [...model].reverse() : model.filter(message => message.offset > query.after!)
        let read = 0
        const expected = behind.filter((message, index) => (read += message.size) <= query.bytes && index < query.limit)
        if (query.after === undefined) expected.reverse()
        const page = await broker.history!(topic, { ...query, ...(query.after === undefined ? {} : { after: query.after }), retention } as never)
        return page.position.offset === offset && page.from === from &&
          JSON.stringify(page.messages.map(({ offset, key }) => [offset, key])) === JSON.stringify(expected.map(({ offset, key }) => [offset, key])) &&
          JSON.stringify(payloads(page)) === JSON.stringify(expected.map(({ data }) => data))
      }
    ), { numRuns: 400 })
  })

  t.test('messages expire as a whole, a ttl after the last publication', async t => {
    const { broker } = await startBroker(t, create())
    const retention = { ...kept, ttl: 2_000 }
    const read = async (): Promise<unknown[]> => payloads(await broker.history!('t', { limit: 10, bytes: 1_000, retention }))
    await broker.publish([{ ...publication('t', 1), retention }])
    await new Promise(resolve => setTimeout(resolve, 1_100))
    await broker.publish([{ ...publication('t', 2), retention }])
    await new Promise(resolve => setTimeout(resolve, 1_100))
    t.same(await read(), [1, 2])
    await new Promise(resolve => setTimeout(resolve, 2_100))
    t.same(await read(), [])
    await broker.publish([{ ...publication('t', 3), retention }])
    t.same(await read(), [3])
    const { position, from } = await broker.history!('t', { limit: 1, bytes: 1_000, retention })
    t.match([position.offset, from], [3, 2], 'the position goes on')
  })
}
