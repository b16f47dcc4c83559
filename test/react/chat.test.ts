import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { gzipSync } from 'node:zlib'
import { build, transform } from 'esbuild'
import { createElement as h, StrictMode, type FunctionComponent } from 'react'
import t from 'tap'
import { createRooms, listen, until } from '../helpers/app.ts'
import { openPage } from './dom.ts'

const root = resolve(import.meta.dirname, '../..')
const page = await readFile(join(root, 'docs/react.md'), 'utf8')
const code = /```tsx\n\/\/ chat\.tsx\n([\s\S]*?)\n```/.exec(page)![1]!

t.test('the chat of docs/react.md has at most 25 lines, and works in two pages of two users', async t => {
  t.ok(code.split('\n').length <= 25, `${code.split('\n').length} lines`)

  const app = await createRooms(t, {
    topics: { 'chat:*': { publish: true, presence: true, history: true } },
    identify: request => ({ user: new URL(request.url, 'http://localhost').searchParams.get('user') ?? 'ann' })
  })
  const address = await listen(app)
  const { window } = openPage(`http://${address}/`)
  Object.defineProperty(globalThis, 'WebSocket', { value: window.WebSocket, configurable: true })
  t.teardown(() => { window.close() })
  const { createRoot } = await import('react-dom/client')
  const { flushSync } = await import('react-dom')

  await mkdir(join(root, '.tap'), { recursive: true })
  const folder = await mkdtemp(join(root, '.tap/chat-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const { code: script } = await transform(code, { loader: 'tsx', jsx: 'automatic', format: 'esm' })
  await writeFile(join(folder, 'chat.mjs'), script.replace(/"fastify-rooms\/(\w+)"/g, (_, entry) => JSON.stringify(pathToFileURL(join(root, `lib/${entry}/index.ts`)).href)))
  const { Chat } = await import(pathToFileURL(join(folder, 'chat.mjs')).href) as { Chat: FunctionComponent<{ id: string }> }

  await app.rooms.broadcast('chat:42', { text: 'before' })
  const container = window.document.querySelector('#root')
  const page = createRoot(container)
  flushSync(() => { page.render(h(StrictMode, null, h(Chat, { id: '42' }))) })
  const status = (): string => container.querySelector('[role=status]').textContent
  const lines = (): string[] => [...container.querySelectorAll('li')].map(item => item.textContent)
  t.match(status(), /^connecting, 0 here/)
  t.ok(container.querySelector('button').disabled)
  await until(() => status().startsWith('open, 1 here'))
  t.same(lines(), [': before'], 'history is there')
  t.same(app.rooms.stats().connections, 1)

  const input = container.querySelector('input')
  const type = (text: string): void => {
    Object.getOwnPropertyDescriptor(window.HTMLInputElement.prototype, 'value')!.set!.call(input, text)
    input.dispatchEvent(new window.Event('input', { bubbles: true }))
  }
  flushSync(() => { type('hello') })
  container.querySelector('button').click()
  await until(() => lines().length === 2 && input.value === '')
  t.same(lines(), [': before', 'ann: hello'])

  const ben = await app.rooms.inject('/rooms/chat:42?user=ben')
  ben.send({ type: 'message', data: { text: 'hi ann' } })
  await until(() => lines().length === 3 && status().startsWith('open, 2 here'))
  t.equal(lines()[2], 'ben: hi ann')

  await app.rooms.kick({ user: 'ann' })
  await until(() => status().startsWith('closed'))
  t.match(status(), /kicked/, 'the reason is shown')
  flushSync(() => { page.unmount() })
})

t.test('the React entry is small', async t => {
  const { outputFiles: [file], metafile } = await build({
    entryPoints: [join(root, 'lib/react/index.ts')],
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    external: ['react'],
    write: false,
    metafile: true,
    logLevel: 'error'
  })
  const zipped = gzipSync(file!.contents, { level: 9 }).length
  t.comment(`fastify-rooms/react without the client: ${file!.contents.length} bytes minified, ${zipped} bytes with gzip -9`)
  t.ok(zipped < 2_000)
  t.same(Object.values(metafile.outputs)[0]!.imports.map(({ path }) => path), ['react'], 'it imports React alone')
})
