import * as main from 'fastify-rooms'
import * as protocol from 'fastify-rooms/protocol'
import * as shared from 'fastify-rooms/topics'
import { describe, expect, test } from 'tstyche'

describe('fastify-rooms/protocol', () => {
  test('has the frames, positions and close codes of fastify-rooms', () => {
    expect<protocol.ServerFrame>().type.toBe<main.ServerFrame>()
    expect<protocol.ClientFrame>().type.toBe<main.ClientFrame>()
    expect<protocol.Position>().type.toBe<main.Position>()
    expect<protocol.CloseCode>().type.toBe<main.CloseCode>()
    expect(protocol.closeBehaviour).type.toBe(main.closeBehaviour)
    expect(protocol.closeCodes[4102]).type.toBe<'room_full'>()
  })

  test('tells positions, names and other values apart', () => {
    const value: unknown = 'chat:1'
    if (protocol.isTopicName(value)) expect(value).type.toBe<string>()
    if (protocol.isSince(value)) expect(value).type.toBe<string>()
    expect(protocol.parsePosition('x')).type.toBe<protocol.Position | null>()
    expect(protocol.parsePosition).type.not.toBeCallableWith(1)
    expect(protocol.formatPosition).type.not.toBeCallableWith('0123456789abcdef-1')
    expect(protocol.modes).type.toBe<readonly ['rooms.v1', 'rooms.raw']>()
  })
})

describe('fastify-rooms/topics', () => {
  test('declares the topics that fastify-rooms registers, and refuses the same faults', () => {
    const topics = shared.defineTopics({ 'run:*': { stream: true }, news: { publish: true } })
    expect(topics).type.toBe(main.defineTopics({ 'run:*': { stream: true }, news: { publish: true } }))
    expect<shared.TopicName<typeof topics>>().type.toBe<`run:${string}` | 'news'>()
    expect(shared.defineTopics).type.not.toBeCallableWith({ news: { publsh: true } })
    expect(shared.defineTopics).type.not.toBeCallableWith({ 'run:*': { stream: true, publish: true } })
  })
})
