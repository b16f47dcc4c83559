import type { AddressInfo } from 'node:net'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { Type } from '@sinclair/typebox'
import Fastify from 'fastify'
import fastifyRooms from '../../lib/index.ts'
import type { Stats } from '../../types/index.ts'

/** The report of the process under attack. */
export interface Condition {
  lobby: Stats
  typed: Stats
  watched: Stats
  /** Errors that reached the process, which none should. */
  stray: string[]
  /** Errors that reached `onError`, because no frame of an attacker is a failure of the host. */
  errors: string[]
  /** Lines of the log at level error or above. */
  logged: string[]
  megabytes: number
  /** The longest stall of the event loop since `begin`, in milliseconds. */
  stall: number
}

/**
 * The process under attack: an open lobby below `/lobby` with compression, typed topics below `/typed`, and a topic with short heartbeats below `/watched`. Protocol with the
 * parent process: `{ port }` once it listens, a report for each `condition`, a stall of 3 s at `stall`, and the close of the app at `close`.
 */
const stray: string[] = []
for (const event of ['unhandledRejection', 'uncaughtException'] as const) {
  process.on(event, (error: unknown) => { stray.push(String((error as Error | undefined)?.stack ?? error)) })
}
const errors: string[] = []
const logged: string[] = []
const onError = (error: Error): void => { errors.push(String(error.stack)) }
const app = Fastify({ logger: { level: 'error', stream: { write (line: string) { logged.push(line) } } } })
const scopes: Record<'lobby' | 'typed' | 'watched', { stats (): Stats }> = {} as never
const Tree = Type.Recursive(This => Type.Object({ kids: Type.Array(This), text: Type.Optional(Type.String({ maxLength: 20 })) }))
await app.register(async scope => {
  await scope.register(fastifyRooms as any, { prefix: '/lobby', onError, websocket: { options: { perMessageDeflate: true } } })
  scopes.lobby = scope.rooms
})
await app.register(async scope => {
  await scope.register(fastifyRooms as any, {
    prefix: '/typed',
    onError,
    topics: {
      tree: { message: Tree, publish: true, presence: Type.Object({ name: Type.String({ maxLength: 10 }) }), post: true },
      'chat:*': { message: Type.Object({ text: Type.String() }), publish: true, limits: { payload: 1_000 } }
    },
    authorize: () => true
  })
  scopes.typed = scope.rooms
})
await app.register(async scope => {
  await scope.register(fastifyRooms as any, { prefix: '/watched', onError, heartbeat: { interval: 400, timeout: 400 } })
  scopes.watched = scope.rooms
})
await app.listen({ host: '127.0.0.1', port: 0 })

// The parent process has ended.
process.once('disconnect', process.exit)

const delay = monitorEventLoopDelay({ resolution: 5 })
delay.enable()
process.on('message', async (message: string) => {
  if (message === 'condition') {
    const condition: Condition = {
      lobby: scopes.lobby.stats(),
      typed: scopes.typed.stats(),
      watched: scopes.watched.stats(),
      stray,
      errors,
      logged,
      megabytes: Math.round(process.memoryUsage().rss / 1_048_576),
      stall: Math.round(delay.max / 1e6)
    }
    process.send!(condition)
  } else if (message === 'begin') {
    delay.reset()
  } else if (message === 'stall') {
    for (const end = performance.now() + 3_000; performance.now() < end;);
    process.send!('over')
  } else {
    await app.close()
    // Nothing may hold the process now, so it is not ended explicitly.
    process.removeListener('disconnect', process.exit)
    process.disconnect()
  }
})
process.send!({ port: (app.server.address() as AddressInfo).port })
