import { randomInt, randomUUID } from 'node:crypto'

const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const length = 12

const pattern = new RegExp(`^([0-9A-Za-z]{${length}})-[0-9a-f-]{36}$`)

/** Returns the id of a node: short, because each session id carries it, and random enough (71 bits) that no two nodes have the same one. */
export function newNodeId (isInProcess: boolean): string {
  return isInProcess ? randomUUID() : Array.from({ length }, () => digits[randomInt(digits.length)]).join('')
}

/** The node whose id a session id carries; `undefined` if it is not an id of such a session. */
export function nodeOf (session: unknown): string | undefined {
  return typeof session === 'string' ? pattern.exec(session)?.[1] : undefined
}
