import { openPage } from './dom.ts'
import { createElement as h, StrictMode, useEffect, useState, type ReactElement } from 'react'
import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import { createClient, type Client, type RoomsError, type WebSocketClass } from '../../lib/client/index.ts'
import * as react from '../../lib/react/index.ts'
import { createRoomsHooks, useRoom, type RoomView, type UseRoomOptions } from '../../lib/react/index.ts'
import { createRooms, listen, until, type AnyOptions } from '../helpers/app.ts'

const { document } = openPage().window
const { createRoot, hydrateRoot } = await import('react-dom/client')
const { flushSync } = await import('react-dom')
const { renderToString } = await import('react-dom/server')

const topics = {
  'chat:*': { message: Type.Object({ text: Type.String() }), publish: true, presence: true, history: true },
  'brief:*': { message: Type.Object({ text: Type.String() }), publish: true, history: { size: 2 } },
  'plain:*': { message: Type.Object({ text: Type.String() }), history: false },
  'answer:*': { message: Type.String(), stream: true },
  admins: {}
} as const
type T = typeof topics
type Chat = RoomView<`chat:${string}`, { text: string }, { text: string }>

/** A server that records connections, joins and frames, and a client of it. */
interface Server {
  app: FastifyInstance
  client: Client<T>
  /** In order: `connect`, `join <topic>`, `leave <topic>`. */
  events: string[]
  /** Frames of the client. */
  frames: { type: string, topic?: string }[]
  sockets: WebSocket[]
}

async function serve (t: Test, options: AnyOptions = {}): Promise<Server> {
  const events: string[] = []
  const frames: Server['frames'] = []
  const sockets: WebSocket[] = []
  const app = await createRooms(t, {
    topics,
    identify: () => ({ user: 'ann' }),
    authorize: ({ action, topic }) => action !== 'join' || topic !== 'admins',
    onJoin: session => { events.push(`join ${session.topic}`) },
    onLeave: session => { events.push(`leave ${session.topic}`) },
    ...options
  })
  const address = await listen(app)
  class Recorded extends WebSocket {
    constructor (url: string, protocols: string[]) {
      super(url, protocols)
      events.push('connect')
      sockets.push(this)
    }

    override send (data: string): void {
      frames.push(JSON.parse(data))
      super.send(data)
    }
  }
  const client = createClient<T>({ url: `http://${address}/rooms`, WebSocket: Recorded as unknown as WebSocketClass })
  t.teardown(() => { client.close() })
  return { app, client, events, frames, sockets }
}

/** Renders in StrictMode. The element is removed with the test. */
function mount (t: Test, element: ReactElement): { render (element: ReactElement | null): void } {
  const container = document.createElement('div')
  const root = createRoot(container)
  const render = (next: ReactElement | null): void => { flushSync(() => { root.render(h(StrictMode, null, next)) }) }
  t.teardown(() => { root.unmount() })
  render(element)
  return { render }
}

/** A component that keeps its views. */
function Viewer ({ client, topic, views, ...options }: UseRoomOptions<any, any> & { client: Client<T>, topic: any, views: RoomView<any, any, any, any>[] }): null {
  const view = useRoom(client, topic, options as never)
  views.push(view as never)
  return null
}

const texts = ({ messages }: RoomView<any, any, any, any>): string[] => messages.map(({ data }) => data.text ?? data)

/** Makes a component of a topic, and functions that look at its last view. */
function viewer (server: Server, topic: string | null, options: UseRoomOptions<any, any> = {}) {
  const views: Chat[] = []
  const element = (more: object = {}): ReactElement => h(Viewer, { client: server.client, topic, views, ...options, ...more } as never)
  return { views, element, get last () { return views.at(-1)! }, isOpen: () => views.at(-1)?.status === 'open' }
}

t.test('StrictMode mounts twice, and there is one connection and one join', async t => {
  const server = await serve(t)
  const one = viewer(server, 'chat:1', { presence: true })
  const { render } = mount(t, one.element())
  t.match(one.views[0], { status: 'connecting', error: null, messages: [], end: null, room: null, transport: null })
  await until(() => one.last.members !== null)
  t.match(one.last, { status: 'open', transport: 'websocket', count: 1, members: [{ user: 'ann' }], recovered: true })
  t.same(server.events, ['connect', 'join chat:1'])
  t.same(server.frames, [], 'the join is in the URL')

  const { publish } = one.last
  await publish({ text: 'hi' })
  await until(() => one.last.messages.length === 1)
  t.same(texts(one.last), ['hi'])
  t.equal(one.last.publish, publish, 'functions stay the same')
  const before = one.views.length
  render(one.element())
  t.equal(one.views.at(-1), one.views[before - 1], 'a render without a change has the same object')

  render(null)
  await until(() => server.app.rooms.stats().members === 0)
  t.same(server.events, ['connect', 'join chat:1', 'leave chat:1'], 'unmounting leaves')
})

t.test('components of one topic share a membership; a re-mount within the grace keeps it', async t => {
  const server = await serve(t)
  const one = viewer(server, 'chat:1')
  const two = viewer(server, 'chat:1', { keep: 1 })
  const { render } = mount(t, h('div', null, one.element({ key: 1 }), two.element({ key: 2 })))
  await until(() => one.isOpen() && two.isOpen())
  await server.app.rooms.broadcast('chat:1', { text: 'a' })
  await server.app.rooms.broadcast('chat:1', { text: 'b' })
  await until(() => texts(one.last).length === 2 && texts(two.last)[0] === 'b')
  t.same(texts(two.last), ['b'], 'each has as many messages as it asked for')

  render(h('div', null, two.element({ key: 2 })))
  await server.app.rooms.broadcast('chat:1', { text: 'c' })
  await until(() => texts(two.last)[0] === 'c')
  render(null)
  await server.app.rooms.broadcast('chat:1', { text: 'd' })
  await new Promise(resolve => setTimeout(resolve, 50))
  const three = viewer(server, 'chat:1')
  render(three.element({ key: 3 }))
  await until(() => three.isOpen())
  t.same(texts(three.last), ['a', 'b', 'c', 'd'], 'the messages are there, also that of the time between')
  t.same(server.events, ['connect', 'join chat:1'])
  t.same(server.frames, [])
})

t.test('two topics share a connection', async t => {
  const server = await serve(t)
  const one = viewer(server, 'chat:1')
  const two = viewer(server, 'chat:2')
  mount(t, h('div', null, one.element({ key: 1 }), two.element({ key: 2 })))
  await until(() => one.isOpen() && two.isOpen())
  t.same(server.events.sort(), ['connect', 'join chat:1', 'join chat:2'])
  t.same(server.frames.map(({ type, topic }) => `${type} ${topic}`), ['join chat:1', 'join chat:2'])
})

t.test('another topic, or none, leaves the first one', async t => {
  const server = await serve(t)
  const one = viewer(server, 'chat:1')
  const { render } = mount(t, one.element())
  await until(one.isOpen)
  await one.last.publish({ text: 'first' })
  await until(() => one.last.messages.length === 1)
  render(one.element({ topic: 'chat:2' }))
  t.match(one.last, { status: 'connecting', messages: [] }, 'nothing of the first topic is shown')
  await until(() => one.isOpen() && server.events.includes('leave chat:1'))
  t.equal(one.last.room!.topic, 'chat:2')
  for (const topic of [null, undefined]) {
    render(one.element({ topic }))
    t.match(one.last, { status: 'closed', error: null, messages: [], room: null })
    await t.rejects(one.last.publish({ text: 'hi' }), { name: 'RoomsError', code: 'unsent' })
    one.last.answer(1)
    one.last.rejoin()
  }
  await until(() => server.app.rooms.stats().members === 0)
  t.pass()
})

t.test('other options join again: since begins anew, presence continues', async t => {
  const server = await serve(t)
  for (const text of ['a', 'b']) await server.app.rooms.broadcast('chat:1', { text })
  const one = viewer(server, 'chat:1')
  const { render } = mount(t, one.element())
  await until(one.isOpen)
  t.same(texts(one.last), [])
  await server.app.rooms.broadcast('chat:1', { text: 'c' })
  await until(() => one.last.messages.length === 1)

  render(one.element({ presence: true }))
  await until(() => one.last.members?.length === 1)
  t.same(texts(one.last), ['c'], 'the list continues')
  render(one.element({ presence: true, since: '0' }))
  await until(() => one.last.messages.length === 3 && one.last.members?.length === 1)
  t.same(texts(one.last), ['a', 'b', 'c'])
  render(one.element({ presence: false, since: '0' }))
  await until(() => one.isOpen() && one.last.members === null)
  await server.app.rooms.broadcast('chat:1', { text: 'd' })
  await until(() => one.last.messages.length === 4)
  t.same(texts(one.last), ['a', 'b', 'c', 'd'], 'no message is twice')
  t.equal(server.events.filter(event => event.startsWith('join')).length, 4)
})

t.test('a component that asks for more joins again for all, one that asks for less does not', async t => {
  const server = await serve(t)
  const one = viewer(server, 'chat:1')
  const two = viewer(server, 'chat:1', { presence: true })
  const { render } = mount(t, one.element({ key: 1 }))
  await until(one.isOpen)
  render(h('div', null, one.element({ key: 1 }), two.element({ key: 2 })))
  await until(() => one.last.members !== null && two.last.members !== null)
  render(h('div', null, one.element({ key: 1 })))
  await server.app.rooms.broadcast('chat:1', { text: 'a' })
  await until(() => one.last.messages.length === 1)
  t.equal(server.events.filter(event => event.startsWith('join')).length, 2)
})

t.test('a snapshot is shown at once, also by the server, and continued', async t => {
  const server = await serve(t)
  for (const text of ['a', 'b']) await server.app.rooms.broadcast('chat:1', { text })
  const snapshot = await server.client.get('chat:1')
  await server.app.rooms.broadcast('chat:1', { text: 'c' })
  const Page = (): ReactElement => {
    const { messages, status } = useRoom(server.client, 'chat:1', { snapshot })
    return h('p', null, `${status}: ${messages.map(({ data }) => data.text).join(' ')}`)
  }
  const html = renderToString(h(StrictMode, null, h(Page)))
  t.equal(html, '<p>connecting: a b</p>')
  t.same(server.events, [], 'the server opens nothing')

  const container = document.createElement('div')
  container.innerHTML = html
  const faults: unknown[] = []
  const root = hydrateRoot(container, h(StrictMode, null, h(Page)), { onRecoverableError: error => { faults.push(error) } })
  t.teardown(() => { root.unmount() })
  await until(() => container.textContent === 'open: a b c')
  t.same(faults, [])
})

t.test('a snapshot of a topic without positions is shown, and the room begins now', async t => {
  const server = await serve(t)
  const { id, ...snapshot } = await server.client.get('plain:1')
  t.equal(id, undefined)
  const one = viewer(server, 'plain:1', { snapshot: { ...snapshot, messages: [{ id: 'x', data: { text: 'shown' } }] } })
  mount(t, one.element())
  await until(one.isOpen)
  await server.app.rooms.broadcast('plain:1', { text: 'next' })
  await until(() => one.last.messages.length === 2)
  t.same(texts(one.last), ['shown', 'next'])
})

t.test('on the server a room is idle', async t => {
  const { client, events } = await serve(t)
  const Page = ({ topic }: { topic: 'chat:1' | null }): ReactElement => {
    const { status, messages, members } = useRoom(client, topic, { presence: true, since: '0' })
    return h('p', null, JSON.stringify([status, messages, members]))
  }
  t.equal(renderToString(h(Page, { topic: 'chat:1' })).replaceAll('&quot;', '"'), '<p>["connecting",[],null]</p>')
  t.equal(renderToString(h(Page, { topic: null })).replaceAll('&quot;', '"'), '<p>["closed",[],null]</p>')
  t.same(events, [])
})

t.test('a burst of messages is not rendered one by one, and the list is bounded', async t => {
  const server = await serve(t, { topics: { ...topics, 'chat:*': { ...topics['chat:*'], history: { size: 400 } } } })
  for (let number = 0; number < 400; number++) await server.app.rooms.broadcast('chat:1', { text: `${number}` })
  const one = viewer(server, 'chat:1', { since: '0', keep: 300 })
  const all = viewer(server, 'chat:1', { since: '0', keep: Infinity })
  mount(t, h('div', null, one.element({ key: 1 }), all.element({ key: 2 })))
  await until(() => all.last.messages.length === 400)
  t.equal(one.last.messages.length, 300)
  t.match(one.last.messages.at(-1), { type: 'message', data: { text: '399' } })
  t.ok(one.views.length < 200, `${one.views.length} renders`)

  const few = viewer(server, 'chat:2', { keep: 2 })
  mount(t, few.element())
  await until(few.isOpen)
  for (const text of ['a', 'b', 'c']) await server.app.rooms.broadcast('chat:2', { text })
  await until(() => texts(few.last).join('') === 'bc')
})

t.test('missing messages: the list is read anew if the component wants kept messages, and says so otherwise', async t => {
  const server = await serve(t)
  const whole = viewer(server, 'brief:1', { since: '0' })
  const told: unknown[] = []
  const reloading = viewer(server, 'brief:2', { reload: ({ messages }) => { told.push(messages.length) } })
  const unaware = viewer(server, 'brief:3')
  const plain = viewer(server, 'plain:1', { reload: ({ id }) => { told.push(id) } })
  const all = [whole, reloading, unaware, plain]
  mount(t, h('div', null, ...all.map((one, key) => one.element({ key }))))
  await until(() => all.every(({ isOpen }) => isOpen()))
  const names = ['brief:1', 'brief:2', 'brief:3', 'plain:1'] as const
  for (const name of names) await server.app.rooms.broadcast(name, { text: 'a' })
  await until(() => all.every(({ last }) => last.messages.length === 1))
  for (const socket of server.sockets) socket.terminate()
  await until(() => all.every(({ last }) => last.status === 'reconnecting'))
  for (const text of ['b', 'c', 'd']) for (const name of names) await server.app.rooms.broadcast(name, { text })
  await until(() => all.every(({ isOpen }) => isOpen()) && told.length === 2 && whole.last.recovered && reloading.last.recovered)
  t.same(all.map(({ last: { recovered } }) => recovered), [true, true, false, false])
  t.same(texts(whole.last), ['c', 'd'], 'the list has the kept messages')
  t.same(texts(reloading.last), ['c', 'd'])
  t.same(told.sort(), [2, undefined])
  t.same(texts(plain.last), ['a'], 'a topic without history keeps the list, and says that messages are missing')
})

t.test('an answer ends, and its view says how', async t => {
  const server = await serve(t)
  const run = await server.app.rooms.stream('answer:1')
  await run.write('Hel')
  const one = viewer(server, 'answer:1', { since: '0' })
  mount(t, one.element())
  await until(one.isOpen)
  await run.write('lo')
  await run.end({ tokens: 2 })
  await until(() => one.last.status === 'closed')
  t.match(one.last, { error: null, end: { reason: 'done', data: { tokens: 2 } } })
  t.equal(texts(one.last).join(''), 'Hello')
})

t.test('a refusal and a kick are in words; rejoin comes back behind the last message', async t => {
  const server = await serve(t)
  const admins = viewer(server, 'admins')
  const { render } = mount(t, admins.element({ key: 1 }))
  await until(() => admins.last.status === 'closed')
  t.match(admins.last.error, { name: 'RoomsError', code: 'FST_ROOMS_FORBIDDEN', status: 403, message: /not allowed: join/ })
  await t.rejects((admins.last as Chat).publish({ text: 'hi' }), { code: 'unsent' })

  const one = viewer(server, 'chat:1', { since: '0' })
  render(one.element({ key: 2 }))
  await until(one.isOpen)
  one.last.rejoin()
  await one.last.publish({ text: 'a' })
  await until(() => one.last.messages.length === 1)
  await server.app.rooms.kick({ user: 'ann' })
  await until(() => one.last.status === 'closed')
  t.match(one.last.error, { code: 'kicked', status: 4005 })
  await server.app.rooms.broadcast('chat:1', { text: 'b' })
  one.last.rejoin()
  await until(() => one.isOpen() && one.last.messages.length === 2)
  t.match(one.last, { error: null })
  t.same(texts(one.last), ['a', 'b'])
})

t.test('all calls of a room are there, and events by its room', async t => {
  const server = await serve(t, {
    onMessage: { 'chat:*': (_session, payload) => ({ echoed: payload }) }
  })
  const answers: unknown[] = []
  const Page = ({ views }: { views: Chat[] }): null => {
    const view = useRoom(server.client, 'chat:1', { presence: true })
    const { room, answer } = view
    useEffect(() => room?.on('direct', ({ ref, data }) => {
      answers.push(data)
      if (ref !== undefined) answer(ref, 'yes')
    }), [room, answer])
    views.push(view as Chat)
    return null
  }
  const views: Chat[] = []
  mount(t, h(Page, { views }))
  await until(() => views.at(-1)!.members !== null)
  const { publish, direct, presence, history, session } = views.at(-1)!
  t.same(await publish({ text: 'hi' }, { key: 'a' }), { echoed: { text: 'hi' } })
  await presence({ typing: true })
  await until(() => JSON.stringify(views.at(-1)!.members).includes('typing'))
  t.same((await history({ limit: 1 })).messages.map(({ data }) => data.text), [])
  await direct(session!, { text: 'psst' })
  t.equal(await server.app.rooms.ask(session!, { text: 'really?' }), 'yes')
  t.same(answers, [{ text: 'psst' }, { text: 'really?' }])
})

t.test('hooks of a topic map take their client from a provider', async t => {
  const server = await serve(t)
  const { RoomsProvider, useRoom, useRoomsClient } = createRoomsHooks<T>()
  const seen: unknown[] = []
  const Page = (): ReactElement => {
    const client = useRoomsClient()
    const { status } = useRoom('chat:1')
    const [isSame] = useState(client === server.client)
    seen.push(isSame)
    return h('p', null, status)
  }
  const container = document.createElement('div')
  const root = createRoot(container)
  t.teardown(() => { root.unmount() })
  root.render(h(StrictMode, null, h(RoomsProvider, { client: server.client }, h(Page))))
  await until(() => container.textContent === 'open')
  t.same([...new Set(seen)], [true])
  for (const Alone of [() => { react.useRoom('chat:1'); return null }, () => { react.useRoom(null); return null }]) {
    t.throws(() => renderToString(h(Alone)), /useRoom has no client: pass one, or render the component in a RoomsProvider/)
  }
  t.throws(() => renderToString(h(() => { react.useRoomsClient(); return null })), /useRoomsClient has no client/)
  t.equal(renderToString(h(react.RoomsProvider, { client: server.client as Client<any> }, h(() => h('i', null, react.useRoom('chat:1').status)))), '<i>connecting</i>')
})

t.test('a client that has closed shows rooms that are closed', async t => {
  const server = await serve(t)
  server.client.close()
  const one = viewer(server, 'chat:1')
  mount(t, one.element())
  await until(() => one.last.status === 'closed')
  const error: RoomsError | null = one.last.error
  t.equal(error, null)
})
