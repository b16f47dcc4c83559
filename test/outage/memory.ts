import { readFileSync } from 'node:fs'
import type { FleetNode } from './fleet.ts'

/** Most bytes by which a node may grow during an outage. */
const mostGrowth = 64 * 1_024 * 1_024
/** Milliseconds between two readings. */
const every = 100

/** Bytes that a process has in memory; `undefined` if the system does not say. */
function rssOf (pid: number): number | undefined {
  try {
    return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1_024
  } catch {
    return undefined // it has ended, or this is not Linux
  }
}

/**
 * Watches by how much the processes of nodes grow during an outage. Begin when members have joined and messages are published: then code is loaded, and the heap has the
 * size that this takes.
 */
export class MemoryWatch {
  readonly #watched: { readonly node: FleetNode, readonly pid: number, readonly base: number, most: number }[] = []
  readonly #timer: NodeJS.Timeout

  constructor (nodes: readonly FleetNode[]) {
    for (const node of nodes) {
      const { pid } = node
      const base = pid === undefined ? undefined : rssOf(pid)
      if (base !== undefined) this.#watched.push({ node, pid: pid!, base, most: base })
    }
    this.#timer = setInterval(() => { this.#look() }, every)
  }

  #look (): void {
    for (const watched of this.#watched) watched.most = Math.max(watched.most, rssOf(watched.pid) ?? 0)
  }

  /** Ends. Returns the most bytes by which a node has grown, of those that were there all the time. Notes a fault of a node that has grown by too much. */
  stop (what: string): number {
    clearInterval(this.#timer)
    this.#look()
    let most = 0
    for (const { node, pid, base, most: reached } of this.#watched) {
      if (node.pid !== pid) continue
      most = Math.max(most, reached - base)
      if (reached - base > mostGrowth) node.faults.push(`it has grown by ${reached - base} bytes from ${base} during "${what}"`)
    }
    return most
  }
}
