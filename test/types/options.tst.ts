import type { ResolvedOptions } from '../../lib/options.ts'
import type { RoomsOptions, RouteHooks, TopicOptions } from 'fastify-rooms'
import { describe, expect, test } from 'tstyche'

type Public = RoomsOptions<any>
type AsyncApi = Exclude<ResolvedOptions['asyncapi'], boolean>
type FromFastify = 'logLevel' | 'logSerializers'
type PartialGroups<T> = { [K in keyof T]?: T[K] extends number ? T[K] : Partial<T[K]> }
/** The options as a host gives them: each may be absent, and a group may be partial. */
interface Given extends Partial<Omit<ResolvedOptions, FromFastify | keyof Groups>>, Groups {}
interface Groups {
  heartbeat?: false | Partial<Exclude<ResolvedOptions['heartbeat'], false>>
  expiry?: Partial<ResolvedOptions['expiry']>
  limits?: Partial<ResolvedOptions['limits']>
  slow?: Partial<ResolvedOptions['slow']>
  drain?: PartialGroups<ResolvedOptions['drain']>
  websocket?: Partial<ResolvedOptions['websocket']>
  routes?: PartialGroups<ResolvedOptions['routes']>
  asyncapi?: boolean | Partial<Omit<AsyncApi, 'hooks'>> & { hooks?: Partial<AsyncApi['hooks']> }
}

describe('the schema of the options', () => {
  test('declares the options of the public type, and those that Fastify passes in', () => {
    expect<Exclude<keyof ResolvedOptions, FromFastify>>().type.toBe<keyof Public>()
    expect<keyof ResolvedOptions['limits']>().type.toBe<keyof NonNullable<Public['limits']>>()
    expect<keyof ResolvedOptions['slow']>().type.toBe<keyof NonNullable<Public['slow']>>()
    expect<keyof ResolvedOptions['drain']>().type.toBe<keyof NonNullable<Public['drain']>>()
    expect<keyof ResolvedOptions['drain']['retry']>().type.toBe<keyof NonNullable<NonNullable<Public['drain']>['retry']>>()
    expect<keyof ResolvedOptions['expiry']>().type.toBe<keyof NonNullable<Public['expiry']>>()
    expect<keyof ResolvedOptions['websocket']>().type.toBe<keyof NonNullable<Public['websocket']>>()
    expect<keyof Exclude<ResolvedOptions['heartbeat'], false>>().type.toBe<keyof Exclude<NonNullable<Public['heartbeat']>, false>>()
    expect<keyof ResolvedOptions['routes']['socket']>().type.toBe<keyof RouteHooks>()
    expect<keyof ResolvedOptions['routes']['broadcast']>().type.toBe<keyof RouteHooks>()
    expect<keyof AsyncApi>().type.toBe<keyof Exclude<NonNullable<Public['asyncapi']>, boolean>>()
    expect<keyof NonNullable<ResolvedOptions['topics']>[string]>().type.toBe<keyof TopicOptions>()
  })

  test('accepts each option as the public type declares it, and nothing else', () => {
    expect<Public>().type.toBeAssignableTo<Given>()
    expect<Given>().type.toBeAssignableTo<Public>()
  })
})
