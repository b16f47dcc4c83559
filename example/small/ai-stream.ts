// An answer of a model that survives a reload: the producer goes on without its reader, which reads on where it was.
//
//   curl -X POST http://127.0.0.1:3000/chat -H 'content-type: application/json' -d '{"prompt":"tea"}'     {"topic":"run:…"}
//   curl http://127.0.0.1:3000/rooms/run:…                             what there is so far
//   npx wscat -c ws://127.0.0.1:3000/rooms/run:…?since=…               the rest, as it comes
//   curl -X POST http://127.0.0.1:3000/chat/run:…/stop
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Type } from '@sinclair/typebox'
import Fastify from 'fastify'
import fastifyRooms, { defineTopics, type Rooms } from 'fastify-rooms'

const topics = defineTopics({ 'run:*': { message: Type.String(), stream: true } })

/** Stands for your model: an async iterable of text that ends with its signal. */
async function * model (prompt: string, signal: AbortSignal): AsyncGenerator<string> {
  for (const word of `You asked about ${prompt}. ${'So much can be said about it, '.repeat(20)}and that is all.`.split(/(?<= )/)) {
    await sleep(20, undefined, { signal })
    yield word
  }
}

const app = Fastify({ logger: { level: 'warn' } })
await app.register(fastifyRooms<typeof topics>, { prefix: '/rooms', topics })
const rooms = app.getDecorator<Rooms<typeof topics>>('rooms')

app.post<{ Body: { prompt: string } }>('/chat', async (request) => {
  const run = await rooms.stream(`run:${randomUUID()}`) // a client that knows the name can read it
  // Not awaited: the answer goes on after the response, with readers or without. Its errors go to the log.
  run.pipe(model(request.body.prompt, run.signal), { merge: (a, b) => a + b })
  return { topic: run.topic }
})

app.post<{ Params: { topic: string } }>('/chat/:topic/stop', async ({ params: { topic } }) => {
  return { stopped: rooms.has(topic) && await rooms.stop(topic) }
})

app.get('/', async (_request, reply) => reply.type('text/html').send(`<!doctype html>
<form><input name="prompt" value="tea"> <button>Ask</button> <button type="button" id="stop">Stop</button></form>
<p id="answer"></p>
<script type="module">
const answer = document.querySelector('#answer')
const post = async (path, body = {}) => (await fetch(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })).json()

// The page keeps the topic alone. After a reload the stream comes from its beginning; after a cut, from where it was.
function read (topic, since = '0') {
  if (since === '0') answer.textContent = ''
  const socket = new WebSocket(\`\${location.origin.replace('http', 'ws')}/rooms/\${topic}?since=\${since}\`)
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data)
    if (frame.type === 'message') answer.append(frame.data)
    if (frame.type === 'end' && frame.reason !== 'done') answer.append(\` (\${frame.reason})\`)
    since = frame.id ?? since
    if (frame.recovered === false) { since = '0'; socket.close(4000) } // some of it is no longer kept: from the beginning
  }
  socket.onclose = ({ code }) => { if (code !== 1000) setTimeout(read, 1000 * Math.random(), topic, since) } // 1000: it has ended
}

document.forms[0].onsubmit = async (event) => {
  event.preventDefault()
  const { topic } = await post('/chat', { prompt: event.target.prompt.value })
  location.hash = topic
  read(topic)
}
document.querySelector('#stop').onclick = () => post(\`/chat/\${location.hash.slice(1)}/stop\`)
if (location.hash) read(location.hash.slice(1))
</script>`))

const { HOST = '127.0.0.1', PORT = '3000' } = process.env
console.log(await app.listen({ host: HOST, port: Number(PORT) }))
