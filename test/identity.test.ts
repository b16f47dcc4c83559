import t from 'tap'
import { bearerToken } from '../lib/index.ts'

const of = (headers: Record<string, string>): string | undefined => bearerToken({ headers })
const encoded = (token: string): string => `bearer.${Buffer.from(token).toString('base64url')}`

t.test('a token is read from the header or the subprotocol', async t => {
  t.equal(of({ authorization: 'Bearer abc' }), 'abc')
  t.equal(of({ authorization: 'bearer  abc' }), 'abc')
  t.equal(of({ 'sec-websocket-protocol': `rooms.v1, ${encoded('grüße, 1')}` }), 'grüße, 1')
  t.equal(of({ 'sec-websocket-protocol': `${encoded('a.b.c')},rooms.v1` }), 'a.b.c')
  t.equal(of({ 'sec-websocket-protocol': 'rooms.v1, bearer.eyJh.eyJz.c2ln' }), 'eyJh.eyJz.c2ln', 'a JWT that was not encoded')
  t.equal(of({ authorization: 'Bearer abc', 'sec-websocket-protocol': encoded('other') }), 'abc')
})

t.test('there may be none', async t => {
  for (const headers of [{}, { authorization: 'Basic abc' }, { authorization: 'Bearer ' }, { 'sec-websocket-protocol': 'rooms.v1' }, { 'sec-websocket-protocol': 'bearer., rooms.v1' }]) t.equal(of(headers), undefined, JSON.stringify(headers))
})
