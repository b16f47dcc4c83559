/** Deadlines of programs that stop the process, with close-with-grace, which fastify-cli uses: docs/operations.md. */
import { once } from 'node:events'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import { Client } from './helpers/app.ts'
import { startExample, withoutSignals, type Example } from './helpers/process.ts'

/** Connects one member that answers the close, and one that does not read and therefore never answers. */
async function join (t: Test, { url }: Example): Promise<Client> {
  const members: Client[] = []
  for (const reads of [true, false]) {
    const socket = new WebSocket(`${url.replace('http', 'ws')}/rooms/news`)
    const client = new Client(socket)
    t.teardown(() => { socket.terminate() })
    await once(socket, 'open')
    await client.next('hello')
    if (!reads) socket.pause()
    members.push(client)
  }
  return members[0]!
}

t.test('issue 8: a deadline below drain.timeout ends the process with exit code 1 while one member has not answered the close', { skip: withoutSignals }, async t => {
  const server = await startExample(t, 'test/deadlines/server.ts', { DELAY: '500', DRAIN: '5000' })
  await join(t, server)
  t.equal((await server.stop('SIGTERM')).code, 1)
})

t.test('issue 8: a deadline above drain.timeout leaves time to cut that member, and the exit code is 0', { skip: withoutSignals }, async t => {
  const server = await startExample(t, 'test/deadlines/server.ts', { DELAY: '60000', DRAIN: '1000' })
  const member = await join(t, server)
  const stopped = server.stop('SIGTERM')
  t.match(await member.next('bye'), { code: 1001, reason: 'going_away' })
  t.equal((await stopped).code, 0)
})
