import * as sinclair from '@sinclair/typebox'
import type { Static } from 'fastify-rooms'
import { describe, expect, test } from 'tstyche'
import * as typebox from 'typebox'

const Level = { Low: 'low', High: 'high' } as const

/** What the compiler makes of a schema. */
declare function payload<S> (schema: S): Static<S>

describe('@sinclair/typebox', () => {
  const { Type } = sinclair

  test('scalars', () => {
    expect(payload(Type.Object({ a: Type.String(), b: Type.Number(), c: Type.Integer(), d: Type.Boolean(), e: Type.Null(), f: Type.Unknown() }))).type.toBe<{ a: string, b: number, c: number, d: boolean, e: null, f: unknown }>()
  })

  test('optional members', () => {
    expect(payload(Type.Object({ a: Type.Optional(Type.String()), b: Type.Number() }))).type.toBe<{ a?: string, b: number }>()
  })

  test('arrays and tuples', () => {
    expect(payload(Type.Array(Type.Tuple([Type.String(), Type.Number()])))).type.toBe<[string, number][]>()
  })

  test('literals, their unions and enums', () => {
    expect(payload(Type.Union([Type.Literal('a'), Type.Literal(1), Type.Literal(true)]))).type.toBe<'a' | 1 | true>()
    expect(payload(Type.Enum(Level))).type.toBe<'low' | 'high'>()
  })

  test('unions that are told apart by a member', () => {
    expect(payload(Type.Union([Type.Object({ type: Type.Literal('a'), a: Type.String() }), Type.Object({ type: Type.Literal('b'), b: Type.Number() })]))).type.toBe<{ type: 'a', a: string } | { type: 'b', b: number }>()
  })

  test('intersections', () => {
    expect(payload(Type.Intersect([Type.Object({ a: Type.String() }), Type.Object({ b: Type.Optional(Type.Number()) })]))).type.toBe<{ a: string } & { b?: number }>()
  })

  test('records', () => {
    expect(payload(Type.Record(Type.String(), Type.Number()))).type.toBe<{ [name: string]: number }>()
  })

  test('recursion', () => {
    const schema = Type.Recursive(This => Type.Object({ name: Type.String(), children: Type.Array(This) }))
    interface Tree { name: string, children: Tree[] }
    expect(payload(schema)).type.toBeAssignableTo<Tree>()
    expect(payload(schema)).type.toBeAssignableFrom<Tree>()
    expect<Static<typeof schema>['children'][number]['children'][number]['name']>().type.toBe<string>()
  })

  test('a transform is what travels, not what it decodes to', () => {
    expect(payload(Type.Object({ at: Type.Transform(Type.String()).Decode(text => new Date(text)).Encode(date => date.toISOString()) }))).type.toBe<{ at: string }>()
  })

  test('unsafe types', () => {
    expect(payload(Type.Object({ when: Type.Unsafe<`${number}:${number}`>({ type: 'string' }) }))).type.toBe<{ when: `${number}:${number}` }>()
  })

  test('derived types', () => {
    expect(payload(Type.Partial(Type.Pick(Type.Object({ a: Type.String(), b: Type.Number(), c: Type.Null() }), ['a', 'b'])))).type.toBe<{ a?: string, b?: number }>()
  })

  test('is what its own Static says', () => {
    const schema = Type.Composite([Type.Object({ a: Type.Readonly(Type.String()) }), Type.Object({ b: Type.Array(Type.Date()) })])
    expect(payload(schema)).type.toBe<sinclair.Static<typeof schema>>()
  })
})

describe('typebox 1.x', () => {
  const { Type } = typebox

  test('scalars', () => {
    expect(payload(Type.Object({ a: Type.String(), b: Type.Number(), c: Type.Integer(), d: Type.Boolean(), e: Type.Null(), f: Type.Unknown() }))).type.toBe<{ a: string, b: number, c: number, d: boolean, e: null, f: unknown }>()
    expect(payload(Type.Object({ a: Type.Any() }))).type.toBe<{ a: any }>()
    expect(payload(Type.Object({ a: Type.Optional(Type.Never()) }))).type.toBe<{ a?: never }>()
    expect(payload(Type.TemplateLiteral('on-${string}'))).type.toBe<string>() // eslint-disable-line no-template-curly-in-string
  })

  test('optional members', () => {
    expect(payload(Type.Object({ a: Type.Optional(Type.String()), b: Type.Number() }))).type.toBe<{ a?: string, b: number }>()
    expect(payload(Type.Object({}))).type.toBe<{}>()
  })

  test('arrays and tuples', () => {
    expect(payload(Type.Array(Type.Tuple([Type.String(), Type.Number()])))).type.toBe<[string, number][]>()
  })

  test('literals, their unions and enums', () => {
    expect(payload(Type.Union([Type.Literal('a'), Type.Literal(1), Type.Literal(true)]))).type.toBe<'a' | 1 | true>()
    expect(payload(Type.Enum(Level))).type.toBe<'low' | 'high'>()
    expect(payload(Type.Enum(['x', 2]))).type.toBe<'x' | 2>()
  })

  test('unions that are told apart by a member', () => {
    expect(payload(Type.Union([Type.Object({ type: Type.Literal('a'), a: Type.String() }), Type.Object({ type: Type.Literal('b'), b: Type.Number() })]))).type.toBe<{ type: 'a', a: string } | { type: 'b', b: number }>()
  })

  test('intersections', () => {
    expect(payload(Type.Intersect([Type.Object({ a: Type.String() }), Type.Object({ b: Type.Optional(Type.Number()) })]))).type.toBe<{ a: string, b?: number }>()
  })

  test('intersections of unions', () => {
    const schema = Type.Intersect([
      Type.Object({ id: Type.String() }),
      Type.Union([Type.Object({ type: Type.Literal('a') }), Type.Object({ type: Type.Literal('b'), b: Type.Number() })])
    ])
    expect(payload(schema)).type.toBeAssignableFrom<{ id: string, type: 'a' }>()
    expect(payload(schema)).type.toBeAssignableFrom<{ id: string, type: 'b', b: number }>()
    expect(payload(schema)).type.not.toBeAssignableFrom<{ id: string, type: 'b' }>()
    expect(payload(schema)).type.not.toBeAssignableFrom<{ type: 'a' }>()
  })

  test('records', () => {
    expect(payload(Type.Record(Type.String(), Type.Number()))).type.toBe<Record<string, number>>()
  })

  test('recursion', () => {
    const schema = Type.Cyclic({ Node: Type.Object({ name: Type.String(), children: Type.Array(Type.Ref('Node')) }) }, 'Node')
    interface Tree { name: string, children: Tree[] }
    expect(payload(schema)).type.toBeAssignableTo<Tree>()
    expect(payload(schema)).type.toBeAssignableFrom<Tree>()
    expect<Static<typeof schema>['children'][number]['children'][number]['name']>().type.toBe<string>()
  })

  test('a codec is what travels, not what it decodes to', () => {
    expect(payload(Type.Object({ at: Type.Codec(Type.String()).Decode(text => new Date(text)).Encode(date => date.toISOString()) }))).type.toBe<{ at: string }>()
  })

  test('refined, readonly and unsafe types', () => {
    const schema = Type.Object({
      refined: Type.Refine(Type.Number(), value => value > 1),
      when: Type.Unsafe<`${number}:${number}`>(Type.String()),
      maybe: Type.Optional(Type.Unsafe<1 | 2>({ enum: [1, 2] })),
      fixed: Type.Readonly(Type.Boolean())
    })
    expect(payload(schema)).type.toBeAssignableFrom<{ refined: number, when: '1:2', fixed: boolean, maybe?: 1 }>()
    expect(payload(schema)).type.toBeAssignableTo<{ refined: number, when: `${number}:${number}`, fixed: boolean, maybe?: 1 | 2 }>()
  })

  test('derived types', () => {
    expect(payload(Type.Partial(Type.Pick(Type.Object({ a: Type.String(), b: Type.Number(), c: Type.Null() }), ['a', 'b'])))).type.toBe<{ a?: string, b?: number }>()
  })

  test('is what its own Static says', () => {
    const schema = Type.Object({
      list: Type.Array(Type.Union([Type.String(), Type.Null()])),
      tuple: Type.Tuple([Type.Literal('a'), Type.Optional(Type.Number())]),
      record: Type.Record(Type.String(), Type.Object({ deep: Type.Optional(Type.Boolean()) })),
      both: Type.Intersect([Type.Object({ a: Type.String() }), Type.Object({ b: Type.Number() })])
    })
    expect(payload(schema)).type.toBeAssignableTo<typebox.Static<typeof schema>>()
    expect(payload(schema)).type.toBeAssignableFrom<typebox.Static<typeof schema>>()
  })
})

describe('anything else', () => {
  test('plain JSON Schema says nothing to the compiler', () => {
    expect(payload({ type: 'object', properties: { a: { type: 'string' } }, required: ['a'] } as const)).type.toBe<unknown>()
    expect<Static<{ $ref: 'shared#' }>>().type.toBe<unknown>()
    expect<Static<object>>().type.toBe<unknown>()
  })
})
