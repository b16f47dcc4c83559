import type { BrokerCapabilities } from '../../types/index.ts'
import type { ConformanceFleet } from '../../types/conformance.ts'
import type { Node } from './node.ts'

/** Abilities of a broker or of its fleet that some cases need, and how a report names them. */
export const needs = {
  nodes: 'a second node',
  total: 'the capability order: "total"',
  history: 'the capability history: true',
  presence: 'the capability presence: true, and "presence"',
  streams: 'the member "streams"',
  shared: 'the capability once: "shared"',
  hold: 'the function "hold"',
  stats: 'the function "stats"',
  cut: 'a fleet with "cut" and "heal"',
  kill: 'a fleet with "kill"'
} as const

export type Need = keyof typeof needs

/** The part of the suite that a case uses. */
export interface Stage {
  readonly fleet: ConformanceFleet
  readonly capabilities: BrokerCapabilities
  /** Nodes that the fleet may have. */
  readonly most: number
  /** Milliseconds until members of a node that was killed are gone. */
  readonly gone: number
  /** Milliseconds until a broker notices that it is cut off, or that it is not any more. */
  readonly noticed: number
  /** Milliseconds until a broker has closed. */
  readonly closed: number
  /** Starts nodes, at most as many as the fleet may have, and waits until each is up. They are closed after the case. */
  nodes (count: number): Promise<Node[]>
  /** Makes a node, and does not start it. Closed after the case. */
  fresh (): Promise<Node>
  /** Waits for a condition. @throws if it does not hold in time */
  until (what: string, holds: () => boolean | Promise<boolean>, timeout?: number): Promise<void>
  /** Waits for events that must not come. */
  quiet (): Promise<void>
}

export interface Case {
  readonly name: string
  readonly needs: readonly Need[]
  run (stage: Stage): Promise<void>
}
