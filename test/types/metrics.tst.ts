import { Registry as FastRegistry } from '@platformatic/prom-client'
import { Registry, register, type OpenMetricsContentType } from 'prom-client'
import { describe, expect, test } from 'tstyche'
import { roomsMetrics, type MetricsOptions } from '../../lib/metrics/index.ts'
import type { Rooms } from '../../types/index.ts'

declare const lobby: Rooms
declare const typed: Rooms<{ news: {}, 'chat:*': { publish: true } }>

describe('fastify-rooms/metrics', () => {
  test('accepts the registries of both clients', () => {
    expect(roomsMetrics).type.toBeCallableWith(lobby, { registry: register })
    expect(roomsMetrics).type.toBeCallableWith(lobby, { registry: new Registry<OpenMetricsContentType>() })
    expect(roomsMetrics).type.toBeCallableWith(lobby, { registry: new FastRegistry() })
    expect(roomsMetrics(lobby, { registry: register })).type.toBe<() => void>()
  })

  test('requires a registry and rooms', () => {
    expect(roomsMetrics).type.not.toBeCallableWith(lobby)
    expect(roomsMetrics).type.not.toBeCallableWith(lobby, {})
    expect(roomsMetrics).type.not.toBeCallableWith(lobby, { registry: {} })
    expect(roomsMetrics).type.not.toBeCallableWith({}, { registry: register })
  })

  test('knows the keys of the topics', () => {
    expect(roomsMetrics).type.toBeCallableWith(typed, { registry: register, topics: ['news', 'chat:*'] })
    expect(roomsMetrics).type.not.toBeCallableWith(typed, { registry: register, topics: ['weather'] })
    expect(roomsMetrics).type.not.toBeCallableWith(typed, { registry: register, topics: ['chat:1'] })
    expect(roomsMetrics).type.toBeCallableWith(lobby, { registry: register, topics: ['*'] })
  })

  test('accepts labels that are strings', () => {
    expect<MetricsOptions>().type.toBeAssignableFrom({ registry: register, prefix: 'rooms_', labels: { app: 'shop' } })
    expect<MetricsOptions>().type.not.toBeAssignableFrom({ registry: register, labels: { app: 1 } })
  })
})
