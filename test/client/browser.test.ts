import { build } from 'esbuild'
import t, { type Test } from 'tap'
import { memoryBroker } from '../../lib/index.ts'
import type { Broker, BrokerHandlers } from '../../types/index.ts'
import { createRooms, until } from '../helpers/app.ts'
import { launch } from '../helpers/browser.ts'
import { freePort } from '../helpers/process.ts'
import { Tab } from '../helpers/tab.ts'
import { startProxy } from './proxy.ts'

/** The client as a bundler makes it: a module, and others that are loaded when they are needed. */
const { outputFiles } = await build({ entryPoints: ['lib/client/index.ts'], outdir: '/', entryNames: 'client', bundle: true, splitting: true, format: 'esm', platform: 'browser', write: false })

/** Counts in two rooms. `report()` tells what the page has got, `steps` are the changes of the status, and `returns` counts returns from the back/forward cache. */
const page = `<!doctype html><title>counter</title><script type="module">
import { createClient } from '/client.js'
const query = new URLSearchParams(location.search)
const client = createClient({ url: '/rooms' })
const counter = client.room('counter', { since: '0', ...query.has('reload') && { reload: ({ messages }) => { got.counter = messages.map(({ data }) => data) } } })
const tens = client.room('tens', { since: '0' })
const got = { counter: [], tens: [] }
globalThis.steps = []
globalThis.returns = 0
globalThis.rooms = { counter, tens }
for (const [name, room] of Object.entries(rooms)) room.on('message', ({ data }) => { got[name].push(data) })
counter.on('status', ({ status }) => { if (status !== steps.at(-1)) steps.push(status) })
addEventListener('pageshow', ({ persisted }) => { if (persisted) returns++ })
globalThis.report = () => ({ got, steps, log: counter.log(), counter: counter.getSnapshot(), tens: tens.getSnapshot() })
</script>`

/** A broker that outlives its server, as one in another process does. */
function lastingBroker (): Broker {
  const inner = memoryBroker()
  let handlers: BrokerHandlers | undefined
  return {
    capabilities: inner.capabilities,
    async start (node, next, settings) {
      const isFirst = handlers === undefined
      handlers = next
      if (isFirst) await inner.start(node, { entry: (...entry) => handlers!.entry(...entry), control: () => {}, state: state => handlers!.state(state), lost: () => {} }, settings)
      else next.state('up')
    },
    attach: (...values) => inner.attach(...values),
    detach: topics => inner.detach(topics),
    publish: batch => inner.publish(batch),
    history: (...values) => inner.history!(...values),
    control: async () => 'gone',
    close: async () => {}
  }
}

/** A server with the page. It listens when it is told to. */
async function createServer (t: Test, broker: Broker, port: number) {
  const app = await createRooms(t, { broker, history: { size: 2_000 }, authorize: () => true })
  app.get('/', (_request, reply) => reply.type('text/html').send(page))
  app.get('/away', (_request, reply) => reply.type('text/html').send('<!doctype html><title>away</title>'))
  for (const { path, text } of outputFiles) app.get(path, (_request, reply) => reply.type('text/javascript').send(text))
  let upgrades = 0
  app.server.prependListener('upgrade', () => { upgrades++ })
  return {
    get upgrades () { return upgrades },
    broadcast: (topic: string, data: unknown) => app.rooms.broadcast(topic, data),
    listen: () => app.listen({ host: '127.0.0.1', port }),
    close: () => app.close()
  }
}

const debuggingPort = await freePort()
const browser = await launch(t, debuggingPort)
if (browser !== undefined) {
  const openTab = async (t: Test, url: string): Promise<Tab> => {
    const tab = await Tab.open(browser, debuggingPort, url)
    t.teardown(() => tab.close())
    return tab
  }

  t.test('a page counts 1,000 messages, whatever happens to it, its network and its server', async t => {
    const port = await freePort()
    const broker = lastingBroker()
    let server = await createServer(t, broker, port)
    await server.listen()
    const proxy = await startProxy(t, `127.0.0.1:${port}`)
    const tab = await openTab(t, `http://${proxy.host}/`)
    let counted = 0
    const count = async (messages: number): Promise<void> => {
      for (let n = 0; n < messages; n++) {
        await server.broadcast('counter', ++counted)
        if (counted % 10 === 0) await server.broadcast('tens', counted)
      }
    }
    const arrives = () => tab.holds(`report().got.counter.length >= ${counted} && report().got.tens.length >= ${Math.floor(counted / 10)}`)
    const has = (status: string) => tab.holds(`Object.values(rooms).every(room => room.getSnapshot().status === '${status}')`)

    /** One interruption: messages come before, during and after it. Returns the changes of the status. */
    const step = async (words: string, expected: string[], transport: string, interrupt: (during: () => Promise<void>) => Promise<void>): Promise<void> => {
      const begunAt = Date.now()
      await count(40)
      await arrives()
      await interrupt(() => count(45))
      await has('open')
      await count(40)
      await arrives()
      const { got, steps, counter, log } = await tab.evaluate('report()')
      await tab.evaluate('steps.length = 0')
      t.same(got.counter, Array.from({ length: counted }, (_, n) => n + 1), `${words}: none is lost, and none comes twice`)
      t.same(got.tens, Array.from({ length: Math.floor(counted / 10) }, (_, n) => 10 * (n + 1)), `${words}: the same in the other room`)
      t.same(steps, expected, `${words}: each status`, { log })
      t.match(counter, { status: 'open', transport, recovered: true, gap: null, error: null })
      t.comment(`${words}: ${Date.now() - begunAt} ms`)
    }

    await tab.holds('globalThis.rooms !== undefined')
    await has('open')
    await step('the beginning', ['open'], 'websocket', during => during())
    t.equal(server.upgrades, 1, 'two rooms share one connection')

    await step('the network is switched off and on', ['waiting', 'reconnecting', 'open'], 'websocket', async during => {
      proxy.isDown = true
      await tab.offline(true)
      proxy.cut()
      await has('waiting')
      await during()
      proxy.isDown = false
      await tab.offline(false)
    })
    await step('the server is started again', ['reconnecting', 'open'], 'websocket', async during => {
      await server.close()
      await has('reconnecting')
      server = await createServer(t, broker, port)
      await during()
      await server.listen()
    })
    await step('the server is killed', ['reconnecting', 'open'], 'websocket', async during => {
      proxy.isDown = true
      proxy.cut()
      await server.close()
      await has('reconnecting')
      server = await createServer(t, broker, port)
      await during()
      await server.listen()
      proxy.isDown = false
    })
    await step('the tab is hidden and its connection cut', ['waiting', 'reconnecting', 'open'], 'websocket', async during => {
      await tab.hide()
      await tab.holds('document.hidden')
      const { upgrades } = server
      proxy.cut()
      await has('waiting')
      await during()
      t.equal(server.upgrades, upgrades, 'a hidden tab makes no attempt')
      await tab.show()
    })
    await step('the tab is frozen', ['waiting', 'reconnecting', 'open'], 'websocket', async during => {
      await tab.hide()
      await tab.holds('document.hidden')
      await tab.freeze(true)
      await has('waiting')
      await during()
      await tab.freeze(false)
      await tab.show()
    })
    await step('the page comes back from the back/forward cache', ['waiting', 'reconnecting', 'open'], 'websocket', async during => {
      await tab.send('Page.navigate', { url: `http://${proxy.host}/away` })
      await tab.holds('document.title === "away"')
      await during()
      await tab.evaluate('history.back()')
      await tab.holds('document.title === "counter"')
      await tab.holds('returns === 1')
    })
    await step('WebSockets do not come through', ['reconnecting', 'open'], 'event-stream', async during => {
      proxy.isWithoutUpgrades = true
      proxy.cut()
      await has('reconnecting')
      await during()
    })
    t.equal(counted, 1_000)
  })

  t.test('a network that has gone silent is noticed when the page is looked at; a server that has lost its history is told', async t => {
    const port = await freePort()
    let server = await createServer(t, memoryBroker(), port)
    await server.listen()
    const proxy = await startProxy(t, `127.0.0.1:${port}`)
    const tab = await openTab(t, `http://${proxy.host}/?reload`)
    await tab.holds('globalThis.rooms?.counter.getSnapshot().status === "open" && rooms.tens.getSnapshot().status === "open"')
    await server.broadcast('counter', 1)
    await tab.holds('report().got.counter.length === 1')

    await tab.hide()
    await tab.holds('document.hidden')
    proxy.isBlackhole = true
    await server.broadcast('counter', 2)
    t.equal(await tab.evaluate('report().counter.status'), 'open', 'a hidden page asks nothing')
    await tab.show()
    await tab.holds('steps.includes("reconnecting")')
    proxy.isBlackhole = false
    proxy.cut()
    await tab.holds('report().got.counter.length === 2')
    t.same(await tab.evaluate('report().got.counter'), [1, 2])

    await server.close()
    server = await createServer(t, memoryBroker(), port)
    await server.broadcast('counter', 7)
    await server.listen()
    await tab.holds('rooms.tens.getSnapshot().status === "open" && report().got.counter[0] === 7')
    await server.broadcast('counter', 8)
    await until(async () => (await tab.evaluate('report().got.counter.length')) === 2)
    t.same(await tab.evaluate('report().got.counter'), [7, 8], 'the page has the snapshot of the new server, and what follows it')
    t.match(await tab.evaluate('report()'), { counter: { status: 'open', recovered: true }, tens: { status: 'open', recovered: false } }, 'a room without a reload keeps saying so')
    await tab.evaluate('rooms.tens.reload()')
    t.match(await tab.evaluate('report()'), { tens: { recovered: true, error: null } })
  })
}
