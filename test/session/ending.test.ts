import t from 'tap'
import { joinCloseCode, refusalError, serverEnding } from '../../lib/session/ending.ts'

t.test('the error of a refused join says the same as its close code', async t => {
  const codes = { 1001: 'FST_ROOMS_DRAINING', 1011: 'FST_ROOMS_HANDLER_FAILED', 4003: 'FST_ROOMS_FORBIDDEN', 4100: 'FST_ROOMS_OVERLOADED', 4102: 'FST_ROOMS_ROOM_FULL', 4103: 'FST_ROOMS_BROKER_DOWN', 4300: 'FST_ROOMS_TOKEN_EXPIRED', 4005: 'FST_ROOMS_JOIN_REFUSED' }
  for (const [code, name] of Object.entries(codes)) t.equal((refusalError('a', serverEnding(Number(code))) as Error & { code: string }).code, name, code)
  t.match(refusalError('a', serverEnding(4100, 'topics')).message, /too many topics/)
  const error = new Error('own')
  t.equal(refusalError('a', { ...serverEnding(4003), error }), error)
  t.equal(joinCloseCode(Object.assign(new Error(), { code: 'FST_ROOMS_TOKEN_EXPIRED', statusCode: 401 })), 4300)
  t.equal(joinCloseCode(Object.assign(new Error(), { statusCode: 404 })), 4004)
})
