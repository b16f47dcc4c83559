import t from 'tap'
import { until } from '../helpers/app.ts'
import { createFleet, type FleetNode } from '../helpers/fleet-broker.ts'
import { turns } from '../helpers/turns.ts'

const topics = { chat: { publish: true }, other: { publish: true } } as const
type Client = Awaited<ReturnType<FleetNode['join']>>

let refs = 0
async function direct (client: Client, to: string, data: unknown): Promise<any> {
  const ref = ++refs
  client.send({ type: 'direct', to, data, ref })
  for (;;) {
    const ack = await client.next('ack')
    if (ack.ref === ref) return ack
  }
}

const gone = { ok: false, error: { code: 'FST_ROOMS_NO_SUCH_SESSION' } }
const silent = async (client: Client, t: any) => t.rejects(client.next('direct', { timeout: 30 }), { code: 'FST_ROOMS_INJECT_TIMEOUT' })

t.test('a private message reaches a session of another node that is in the topic of the sender', async t => {
  const { exchange, nodes: [a, b] } = await createFleet(t, 2, { topics })
  const [ann, ben, far, anonymous] = [await a!.join('chat', 'ann'), await b!.join('chat', 'ben'), await b!.join('other', 'ben'), await a!.join('chat')]
  t.same(await direct(ann, ben.session, { hi: 1 }), { type: 'ack', ref: refs, ok: true, data: { local: 0 } })
  t.same(await ben.next('direct'), { type: 'direct', data: { hi: 1 }, from: ann.session, user: 'ann' })
  t.match(await direct(anonymous, ben.session, null), { ok: true })
  t.same(await ben.next('direct'), { type: 'direct', data: null, from: anonymous.session })
  t.match(await direct(ann, far.session, 2), gone, 'a session in another topic looks like one that does not exist')
  t.match(await direct(ann, `${'x'.repeat(12)}-${ben.session.slice(13)}`, 3), gone)
  t.equal(exchange.sent.filter(({ message }) => message.type === 'direct').every(({ to }) => to.startsWith('node:')), true)
  await ben.close()
  await until(() => b!.rooms.stats().members === 1)
  t.match(await direct(ann, ben.session, 4), gone)
  t.equal(b!.rooms.stats().directs, 2)
})

t.test('a private message to a user reaches its sessions in the topic on all nodes', async t => {
  const { nodes: [a, b, c] } = await createFleet(t, 3, { topics })
  const [ann, benA, benB, benOther, benC] = [await a!.join('chat', 'ann'), await a!.join('chat', 'ben'), await b!.join('chat', 'ben'), await b!.join('other', 'ben'), await c!.join('chat', 'ben')]
  await turns(3)
  t.match(await direct(ann, 'user:ben', 1), { ok: true, data: { local: 1 } })
  for (const client of [benA, benB, benC]) t.match(await client.next('direct'), { data: 1, from: ann.session, user: 'ann' })
  await silent(benOther, t)
  const cleo = await c!.join('chat', 'cleo')
  t.match(await direct(ann, 'user:dora', 1), gone, 'no node holds the user')
  t.match(await direct(ann, `user:${'x'.repeat(300)}`, 1), gone, 'no identity has such a name')
  await turns(3)
  t.match(await direct(ann, 'user:cleo', 2), { ok: true, data: { local: 0 } })
  t.match(await cleo.next('direct'), { data: 2 })
})

t.test('authorize is asked once about the topic of the sender, and its answer holds for all nodes', async t => {
  const asked: any[] = []
  let refused = ''
  const { exchange, nodes: [a, b] } = await createFleet(t, 2, {
    topics,
    authorize: (context: any) => {
      if (context.action !== 'direct') return true
      asked.push(context.target)
      return context.target.topic !== refused
    }
  })
  const [ann, benA, benB, benFar] = [await a!.join('chat', 'ann'), await a!.join('other', 'ben'), await b!.join('chat', 'ben'), await b!.join('other', 'ben')]
  await turns(3)
  t.match(await direct(ann, benB.session, 1), { ok: true, data: { local: 0 } })
  t.match(await benB.next('direct'), { data: 1 })
  t.same(asked.splice(0), [{ topic: 'chat', session: benB.session }])
  t.match(await direct(ann, benFar.session, 1), gone)
  asked.splice(0)

  t.match(await direct(ann, 'user:ben', 2), { ok: true, data: { local: 1 } })
  for (const client of [benA, benB]) t.match(await client.next('direct'), { data: 2 })
  t.same(asked.splice(0), [{ topic: 'other', user: 'ben' }, { topic: 'chat', user: 'ben' }])
  await silent(benFar, t)

  refused = 'other'
  t.match(await direct(ann, 'user:ben', 3), { ok: true, data: { local: 0 } }, 'a refusal of another topic is not one of the own')
  t.match(await benB.next('direct'), { data: 3 })
  refused = 'chat'
  const before = exchange.sent.length
  t.match(await direct(ann, 'user:ben', 4), { ok: true, data: { local: 1 } })
  t.match(await benA.next('direct'), { data: 4 })
  t.match(await direct(ann, benB.session, 5), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN' } })
  t.equal(exchange.sent.length, before, 'nothing was sent to the other node')
})

t.test('onDirect decides about receivers on other nodes, too', async t => {
  let answer: (direct: any) => unknown = direct => { direct.deliver() }
  const { nodes: [a, b] } = await createFleet(t, 2, { topics: { chat: { publish: true, message: { type: 'object', properties: { text: { type: 'string' } } } } }, onDirect: { chat: (_session, _payload, direct) => answer(direct) }, onError: () => {} })
  const [ann, ben] = [await a!.join('chat', 'ann'), await b!.join('chat', 'ben')]
  await turns(3)
  for (const to of [ben.session, 'user:ben']) {
    t.match(await direct(ann, to, { text: 'own' }), { ok: true, data: { local: 0 } })
    t.match(await ben.next('direct'), { data: { text: 'own' }, from: ann.session })
  }
  answer = direct => direct.deliver({ text: 'changed' }) + 10
  t.match(await direct(ann, ben.session, {}), { ok: true, data: 10 })
  t.match(await ben.next('direct'), { data: { text: 'changed' } })
  answer = direct => { direct.deliver({ text: 7 }) }
  t.match(await direct(ann, ben.session, {}), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
  answer = () => {}
  t.match(await direct(ann, ben.session, {}), { ok: true, data: { local: 0 } })
  await silent(ben, t)
  answer = direct => { direct.deliver() }
  t.match(await direct(ann, 'user:nobody', {}), { ok: true, data: { local: 0 } })
  a!.broker.cut()
  t.match(await direct(ann, ben.session, {}), { ok: false, error: { code: 'FST_ROOMS_BROKER_DOWN' } })
  answer = direct => { direct.deliver(); return 'stored' }
  t.match(await direct(ann, 'user:ben', {}), { ok: true, data: 'stored' }, 'the handler has given its own answer')
  const delivered = new Promise(resolve => {
    answer = async direct => {
      await a!.rooms.kick({ user: 'ann' }).catch(() => {})
      resolve(direct.deliver())
    }
  })
  ann.send({ type: 'direct', to: ben.session, data: {} })
  t.equal(await delivered, 0, 'the sender was ended by the server')
  await ann.closed
})

t.test('a broker that is down is told to the sender, unless a session of this node has got the message', async t => {
  const { nodes: [a, b] } = await createFleet(t, 2, { topics })
  const [ann, benA, benB] = [await a!.join('chat', 'ann'), await a!.join('chat', 'ben'), await b!.join('chat', 'ben')]
  a!.broker.cut()
  for (const to of [benB.session, 'user:cleo']) t.match(await direct(ann, to, 1), { ok: false, error: { code: 'FST_ROOMS_BROKER_DOWN' } })
  t.match(await direct(ann, 'user:ben', 2), { ok: true, data: { local: 1 } })
  t.match(await benA.next('direct'), { data: 2 })
  a!.broker.heal()
  t.match(await direct(ann, benB.session, 3), { ok: true })
})
