import type { GoneUser, PresenceDelta, PresenceMember, PresenceOutcome, PresencePage } from '../../types/index.ts'
import { FST_ROOMS_BROKER_FAULT } from '../errors.ts'
import { isName, maxNameLength } from '../feed/check-entry.ts'
import { readInfo } from '../identity/info.ts'
import { isTopicName } from '../protocol/topic-name.ts'
import type { PresentMember } from './roster.ts'

/** A member of another node, checked. */
export interface RemoteMember extends PresentMember {
  readonly node: string
  /** Its info as JSON. */
  readonly json: string | undefined
}

/** Changes of members on one node, checked. */
export interface Delta {
  readonly version: number
  readonly node: string
  readonly set: RemoteMember[]
  readonly leave: string[]
  /** Members that were left out, because they could not be read. */
  readonly refused: number
}

/** Members of a topic, checked. */
export interface MembersPage {
  readonly version: number
  readonly count: number
  readonly members: RemoteMember[]
  /** The page has all members. */
  readonly isWhole: boolean
  readonly refused: number
}

/** A user of a topic, checked. */
export interface KnownUser { readonly topic: string, readonly user: string, readonly info: unknown }

/** Whether a value is a whole number that counts something. */
function isCount (value: unknown): value is number {
  return Number.isSafeInteger(value) && value as number >= 0
}

function refuse (fault: string): never {
  throw new FST_ROOMS_BROKER_FAULT(fault)
}

/** Reads presence info. Returns `null` in place of an info that cannot be read. */
function infoOf (json: unknown, limit: number): { readonly json: string | undefined, readonly info: unknown } | null {
  if (json === undefined) return { json, info: undefined }
  if (typeof json !== 'string') return null
  try {
    return { json, info: readInfo(json, limit) }
  } catch {
    return null
  }
}

/** Reads members, and leaves out those that cannot be read, so that one of them does not hide all others. */
function membersOf (given: readonly unknown[], limit: number, node?: string): { members: RemoteMember[], refused: number } {
  const members: RemoteMember[] = []
  for (const value of given) {
    const { session, user, info: json, ...others } = Object(value) as PresenceMember
    const at = node ?? others.node
    const info = infoOf(json, limit)
    if (isName(session) && isName(at) && (user === undefined || isName(user)) && info !== null) members.push({ id: session, node: at, user, ...info, isAnnounced: false })
  }
  return { members, refused: given.length - members.length }
}

/**
 * Checks changes of members that a broker brings. Returns a copy.
 * @param infoLimit - bytes of the info of a member, as JSON
 * @throws FST_ROOMS_BROKER_FAULT
 */
export function checkDelta (topic: string, given: unknown, infoLimit: number): Delta {
  const { version, node, set, leave } = Object(given) as PresenceDelta
  if (!isCount(version) || version === 0) refuse(`a presence delta of topic "${topic}" is refused: "version" is not a number from 1`)
  if (!isName(node)) refuse(`a presence delta of topic "${topic}" is refused: "node" is not a string of 1 to ${maxNameLength} characters`)
  if (!Array.isArray(set) || !Array.isArray(leave)) refuse(`a presence delta of topic "${topic}" is refused: "set" and "leave" are not arrays`)
  const { members, refused } = membersOf(set, infoLimit, node)
  const left = leave.filter(isName)
  return { version, node, set: members, leave: left, refused: refused + leave.length - left.length }
}

/**
 * Checks members that a broker has read. Returns a copy, which has at most `limit` of them.
 * @throws FST_ROOMS_BROKER_FAULT
 */
export function checkPage (topic: string, given: unknown, limit: number, infoLimit: number): MembersPage {
  const { version, count, members } = Object(given) as PresencePage
  if (!isCount(version) || !isCount(count) || !Array.isArray(members)) refuse(`the members of topic "${topic}" are refused: they have no "version", "count" and "members"`)
  return { version, count, ...membersOf(members.slice(0, limit), infoLimit), isWhole: members.length < limit || count <= members.length }
}

/**
 * Checks the answers to changes.
 * @throws FST_ROOMS_BROKER_FAULT
 */
export function checkOutcomes (given: unknown, length: number): PresenceOutcome[] {
  if (!Array.isArray(given) || given.length !== length) refuse(`${length} changes of presence were answered with what are not as many outcomes`)
  return given.map(outcome => {
    const { user } = Object(outcome) as PresenceOutcome
    return user === 'first' || user === 'last' ? { user } : {}
  })
}

/**
 * Checks the numbers of members of topics.
 * @throws FST_ROOMS_BROKER_FAULT
 */
export function checkCounts (given: unknown, length: number): number[] {
  if (Array.isArray(given) && given.length === length && given.every(isCount)) return given
  return refuse(`"counts" of ${length} topics was answered with what are not as many numbers`)
}

/**
 * Checks the names of topics.
 * @throws FST_ROOMS_BROKER_FAULT
 */
export function checkTopics (given: unknown): string[] {
  return Array.isArray(given) ? given.filter(isTopicName) : refuse('"topics" was answered with what is not an array')
}

/**
 * Checks users that have gone or come back with their node. Info that cannot be read is left out.
 * @throws FST_ROOMS_BROKER_FAULT
 */
export function checkUsers (given: unknown, infoLimit: number): KnownUser[] {
  if (!Array.isArray(given)) refuse('users that have gone or come back are not in an array')
  return given.map((value: unknown) => {
    const { topic, user, info } = Object(value) as GoneUser
    if (!isTopicName(topic) || !isName(user)) refuse('a user that has gone or come back has no name, or no topic')
    return { topic, user, info: infoOf(info, infoLimit)?.info }
  })
}
