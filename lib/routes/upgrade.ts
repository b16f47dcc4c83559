import type { IncomingMessage } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { dropReply } from '../api/request-rooms.ts'
import { detachAnswer, streamOf } from '../internals.ts'
import { corkThisTurn } from '../server/cork.ts'
import type { UpgradeGuard } from '../server/upgrade-guard.ts'
import { kConnection, kInjected, kJoins } from '../symbols.ts'
import { hearErrors, hearErrorsAlone, type MemberSocket } from '../transport/ws/listeners.ts'

/** The WebSocket of an upgrade, before it has a connection. */
export type UpgradedSocket = MemberSocket & Parameters<typeof hearErrorsAlone>[0]
type Upgrade = IncomingMessage & { [kJoins]?: true, [kInjected]?: (socket: UpgradedSocket) => void }

/** Detaches the response, which is never sent, from its socket, because it would keep request and reply in memory as long as the connection lives. */
function detachResponse (socket: UpgradedSocket, request: FastifyRequest): void {
  const stream = streamOf(socket)
  if (stream !== undefined) detachAnswer(stream)
  dropReply(request)
}

/** The last hook before an upgrade. Corks the socket, so that the upgrade response and hello leave in one write. */
export function answerWithHello (request: FastifyRequest, _reply: FastifyReply, done: () => void): void {
  if (request.ws) {
    (request.raw as Upgrade)[kJoins] = true
    corkThisTurn(request.raw.socket)
  }
  done()
}

/** Terminates a WebSocket that has no session at the end of its turn, because its upgrade came too late or the host's code threw. */
function endUnclaimed (socket: UpgradedSocket): void {
  if (socket[kConnection] === null) socket.terminate()
}

type Accept = (socket: UpgradedSocket, request: Upgrade) => void
type UpgradeServer = { handleUpgrade (request: Upgrade, stream: unknown, head: Buffer, accept: Accept): void }

/**
 * Adds a listener for errors to each WebSocket of the plugin when it is created. The callback of `handleUpgrade` is replaced for that, because ws
 * calls it before any other listener or handler.
 * @param websocketServer - a server of ws; each hub that shares it may call this
 */
export function listenForErrors (websocketServer: object): void {
  const server = websocketServer as UpgradeServer
  const { handleUpgrade } = server
  server.handleUpgrade = function (request, stream, head, accept) {
    handleUpgrade.call(this, request, stream, head, (socket, upgrade) => {
      if (request[kJoins] === true && socket[kConnection] === undefined) {
        hearErrors(socket)
        process.nextTick(endUnclaimed, socket)
      }
      accept(socket, upgrade)
    })
  }
}

/**
 * Takes the WebSocket of an upgrade over from @fastify/websocket. Returns when the upgrade began, on the clock of `performance`; `undefined` if it took too long, and
 * the socket has been destroyed.
 */
export function takeUpgrade (scope: FastifyInstance, guard: UpgradeGuard, socket: UpgradedSocket, request: FastifyRequest): number | undefined {
  // Removed, so that @fastify/websocket does not close it first, without a code. Without `clientTracking` there is no set of clients.
  scope.websocketServer.clients?.delete(socket as never)
  // Removes the listener of @fastify/websocket, because it would log violations of a peer as errors, and keeps the request in memory.
  hearErrorsAlone(socket)
  const begunAt = guard.upgraded(request.raw.socket)
  detachResponse(socket, request)
  if (begunAt !== undefined) (request.raw as Upgrade)[kInjected]?.(socket)
  return begunAt
}
