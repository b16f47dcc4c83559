/** Event streams as clients see them that this project did not write: the `eventsource` package, curl, and EventSource and fetch in Chromium. */
import { execFile, spawn, spawnSync } from 'node:child_process'
import type { Socket } from 'node:net'
import { promisify } from 'node:util'
import { EventSource } from 'eventsource'
import t, { type Test } from 'tap'
import { createRooms, listen, until, type AnyOptions } from './helpers/app.ts'
import { launch, patience } from './helpers/browser.ts'
import { EventClient } from './helpers/event-stream.ts'

async function serve (t: Test, options: AnyOptions = {}) {
  const app = await createRooms(t, { topics: { news: { history: true, presence: true, post: true } as never }, authorize: () => true, heartbeat: { interval: 300, timeout: 5_000 }, ...options })
  const sockets = new Set<Socket>()
  app.server.on('connection', socket => {
    sockets.add(socket)
    socket.on('close', () => { sockets.delete(socket) })
  })
  app.get('/page', (_request, reply) => { reply.type('text/html').send('<!doctype html><title>streams</title>') })
  const rooms = app.rooms as any
  let published = 0
  return {
    app,
    rooms,
    url: `http://${await listen(app)}`,
    /** Publishes numbers. Returns all of them so far. */
    async publish (count: number): Promise<number[]> {
      for (let n = 0; n < count; n++) await rooms.broadcast('news', ++published)
      return Array.from({ length: published }, (_, index) => index + 1)
    },
    /** Destroys all connections, as a network does that goes away. */
    cut: () => { for (const socket of sockets) socket.destroy() },
    joined: () => until(() => rooms.stats().members === 1, patience)
  }
}

/** A client shows the payloads of all messages that it got, and how often it was told that it has all, or that it has not. */
interface Seen { payloads (): Promise<unknown[]>, pings (): Promise<number>, hellos (): Promise<(boolean | null)[]>, isOver (): Promise<boolean> }

/** An EventSource misses nothing over a cut, hears pings, and stops at a 204. */
async function keepsAll (t: Test, { rooms, publish, cut, joined }: Awaited<ReturnType<typeof serve>>, seen: Seen, forbid: () => void): Promise<void> {
  const gets = async (all: number[], what: string): Promise<void> => {
    await until(async () => (await seen.payloads()).length >= all.length, patience)
    t.same(await seen.payloads(), all, what)
  }
  await joined()
  await gets(await publish(3), 'what is published while it is there')
  await until(async () => await seen.pings() > 1, patience)
  cut()
  await until(() => rooms.stats().members === 0)
  await publish(2)
  await joined()
  await gets(await publish(1), 'what was published while it was away, once and in order')
  t.same(await seen.hellos(), [null, true])
  forbid()
  cut()
  await until(() => seen.isOver(), patience)
  t.equal(rooms.stats().members, 0)
}

t.test('the eventsource package', async t => {
  let forbidden = false
  const server = await serve(t, { onJoin: () => !forbidden })
  const source = new EventSource(`${server.url}/rooms/news`)
  t.teardown(() => { source.close() })
  const frames: any[] = []
  let pings = 0
  source.addEventListener('message', ({ data }) => { frames.push(JSON.parse(data)) })
  source.addEventListener('ping', () => { pings++ })
  source.addEventListener('error', () => {})
  await keepsAll(t, server, {
    payloads: async () => frames.filter(({ type }) => type === 'message').map(({ data }) => data),
    pings: async () => pings,
    hellos: async () => frames.filter(({ type }) => type === 'hello').map(({ recovered }) => recovered ?? null),
    isOver: async () => source.readyState === source.CLOSED
  }, () => { forbidden = true })
})

const curlIsMissing = process.env.CI === undefined && spawnSync('curl', ['--version']).error !== undefined && 'there is no curl'

t.test('curl', { skip: curlIsMissing }, async t => {
  const { url, rooms, publish, joined } = await serve(t)
  const curl = spawn('curl', ['--silent', '--show-error', '--no-buffer', '--header', 'accept: text/event-stream', `${url}/rooms/news`])
  t.teardown(() => { curl.kill() })
  const client = new EventClient(curl.stdout)
  await joined()
  await publish(2)
  await until(() => client.payloads.length === 2)
  const last = client.events.findLast(({ id }) => id !== undefined)!.id!
  await publish(2)
  await rooms.kick({ topic: 'news' })
  await client.ended
  t.match(client.frames.at(-1), { type: 'bye', code: 4005 })
  t.same(client.payloads, [1, 2, 3, 4])
  const again = spawn('curl', ['--silent', '--no-buffer', '--header', 'accept: text/event-stream', '--header', `last-event-id: ${last}`, `${url}/rooms/news`])
  t.teardown(() => { again.kill() })
  const resumed = new EventClient(again.stdout)
  t.match(await resumed.next('hello'), { recovered: true, replayed: 2 })
  await until(() => resumed.payloads.length === 2)
  t.same(resumed.payloads, [3, 4])
  again.kill()
  await until(() => rooms.stats().members === 0)
  const { stdout } = await promisify(execFile)('curl', ['--silent', '--include', `${url}/rooms/news?since=${last}`])
  t.match(stdout, /^HTTP\/1.1 200 OK\r\n/)
  t.match(JSON.parse(stdout.slice(stdout.indexOf('\r\n\r\n'))), { messages: [{ data: 3 }, { data: 4 }], recovered: true, complete: true })
})

const browser = await launch(t)
if (browser !== undefined) {
  t.test('EventSource in Chromium', async t => {
    let forbidden = false
    const server = await serve(t, { onJoin: () => !forbidden })
    const page = await browser.newPage()
    await page.goto(`${server.url}/page`)
    await page.evaluate(`{
      const source = globalThis.source = new EventSource('/rooms/news')
      globalThis.frames = []
      globalThis.pings = 0
      source.onmessage = ({ data }) => { globalThis.frames.push(JSON.parse(data)) }
      source.addEventListener('ping', () => { globalThis.pings++ })
    }`)
    const frames = async (): Promise<any[]> => page.evaluate('globalThis.frames') as Promise<any[]>
    await keepsAll(t, server, {
      payloads: async () => (await frames()).filter(({ type }) => type === 'message').map(({ data }) => data),
      pings: async () => page.evaluate('globalThis.pings') as Promise<number>,
      hellos: async () => (await frames()).filter(({ type }) => type === 'hello').map(({ recovered }) => recovered ?? null),
      isOver: async () => await page.evaluate('globalThis.source.readyState') === 2
    }, () => { forbidden = true })
    await page.close()
  })

  t.test('fetch in Chromium reads a stream, and resumes it from the last id', async t => {
    const { url, rooms, publish, cut, joined } = await serve(t)
    const page = await browser.newPage()
    await page.goto(`${url}/page`)
    const read = `async since => {
      globalThis.messages ??= []
      const response = await fetch('/rooms/news' + (since ? '?since=' + since : ''), { headers: { accept: 'text/event-stream' } })
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
      let text = ''
      try {
        for (;;) {
          const { value, done } = await reader.read()
          if (done) return 'end'
          text += value
          const blocks = text.split('\\n\\n')
          text = blocks.pop()
          for (const block of blocks) {
            const id = /^id: (.*)$/m.exec(block)
            if (id) globalThis.last = id[1]
            const data = /^data: (.*)$/m.exec(block)
            if (data && !block.includes('event: ')) {
              const frame = JSON.parse(data[1])
              if (frame.type === 'message') globalThis.messages.push(frame.data)
            }
          }
        }
      } catch { return 'cut' }
    }`
    const messages = async (): Promise<number[]> => page.evaluate('globalThis.messages') as Promise<number[]>
    const first = page.evaluate(`(${read})()`)
    await joined()
    await publish(3)
    await until(async () => (await messages()).length === 3, patience)
    cut()
    t.equal(await first, 'cut')
    await until(() => rooms.stats().members === 0)
    await publish(2)
    const second = page.evaluate(`(${read})(globalThis.last)`)
    await joined()
    const all = await publish(1)
    await until(async () => (await messages()).length === all.length, patience)
    await rooms.kick({ topic: 'news' })
    t.equal(await second, 'end')
    t.same(await messages(), all)
    await page.close()
  })
}
