import { Type } from '@sinclair/typebox'
import { defineTopics, type EndFrame, type EndReason, type KeptEnd, type KeptMessages, type OpenTopics, type Rooms, type ServerFrame, type StreamEnd, type StreamName, type StreamRun, type Topics } from 'fastify-rooms'
import { describe, expect, test } from 'tstyche'

const Chunk = Type.Object({ text: Type.String() })
export const topics = defineTopics({
  'run:*': { message: Chunk, stream: true },
  log: { message: Type.String(), stream: true, history: { bytes: 1_000, ttl: 1_000 }, slow: { policy: 'drop' } },
  news: { message: Type.String(), history: true },
  any: { stream: true, post: true }
})
declare const rooms: Rooms<typeof topics>
declare const id: string
interface Part { text: string }
async function * parts (): AsyncGenerator<Part> {}

describe('a stream', () => {
  test('is claimed by the name of a topic that is one', () => {
    expect<StreamName<typeof topics>>().type.toBe<`run:${string}` | 'log' | 'any'>()
    expect(rooms.stream(`run:${id}`)).type.toBe<Promise<StreamRun<Part, `run:${string}`>>>()
    expect(rooms.stream('run:1')).type.toBe<Promise<StreamRun<Part, 'run:1'>>>()
    expect(rooms.stream('log')).type.toBe<Promise<StreamRun<string, 'log'>>>()
    expect(rooms.stream('any')).type.toBe<Promise<StreamRun<unknown, 'any'>>>()
    expect(rooms.stream).type.not.toBeCallableWith('news')
    expect(rooms.stream).type.not.toBeCallableWith('weather')
    expect(rooms.stop('run:1')).type.toBe<Promise<boolean>>()
    expect(rooms.stop).type.not.toBeCallableWith('news')
  })

  test('may have any name in the open lobby, whose topics are not known', () => {
    expect<StreamName<OpenTopics>>().type.toBe<string>()
    expect<StreamName<Topics>>().type.toBe<string>()
    expect(({} as Rooms).stream(id)).type.toBe<Promise<StreamRun<unknown, string>>>()
  })

  test('takes the messages of its topic', async () => {
    const run = await rooms.stream('run:1')
    expect(run.topic).type.toBe<'run:1'>()
    expect(run.signal).type.toBe<AbortSignal>()
    expect(run.write({ text: 'x' })).type.toBe<Promise<string>>()
    expect(run.write).type.toBeCallableWith({ text: 'x' }, { key: 'k' })
    expect(run.write).type.not.toBeCallableWith('x')
    expect(run.write).type.not.toBeCallableWith({ text: 'x' }, { except: 'session' })
    expect(run.pipe(parts())).type.toBe<Promise<StreamEnd<'run:1'>>>()
    expect(run.pipe).type.toBeCallableWith({} as ReadableStream<Part>)
    expect(run.pipe).type.toBeCallableWith(parts(), { merge: (a: Part, b: Part) => ({ text: a.text + b.text }) })
    expect(run.pipe).type.not.toBeCallableWith(parts(), { merge: (a: Part) => a.text })
    expect(run.pipe).type.not.toBeCallableWith({} as AsyncIterable<string>)
    expect(run.pipe).type.not.toBeCallableWith({} as ReadableStream<string>)
    expect(run.pipe).type.not.toBeCallableWith([{ text: 'x' }])
    expect(run.end).type.toBeCallableWith()
    expect(run.end).type.toBeCallableWith({ tokens: 1 })
    expect(run.fail).type.toBeCallableWith(new Error('x'))
    expect(run.fail).type.not.toBeCallableWith()
    expect((await run.end()).reason).type.toBe<EndReason>()
    expect(run).type.toBeAssignableTo<AsyncDisposable>()
  })

  test('has an end in pages and frames', () => {
    expect<KeptMessages['ended']>().type.toBe<KeptEnd | undefined>()
    expect<Extract<ServerFrame, { type: 'end' }>>().type.toBe<EndFrame>()
    expect<EndReason>().type.toBe<'done' | 'failed' | 'stopped' | 'lost'>()
  })

  test('has no writers but its producer, and keeps all of its messages', () => {
    expect(defineTopics).type.toBeCallableWith({ run: { stream: true, history: true } })
    expect(defineTopics).type.not.toBeCallableWith({ run: { stream: true, publish: true } })
    expect(defineTopics).type.not.toBeCallableWith({ run: { stream: true, history: false } })
    expect(defineTopics).type.not.toBeCallableWith({ run: { stream: true, history: { latest: true } } })
    expect(defineTopics).type.not.toBeCallableWith({ run: { stream: false } })
    expect(defineTopics).type.not.toBeCallableWith({ run: { stream: 'yes' } })
  })
})
