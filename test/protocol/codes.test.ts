import t from 'tap'
import { closeBehaviour, closeCodes, closeName, isSendable, maxReasonBytes } from '../../lib/protocol/close-codes.ts'

t.test('each code of the catalogue can be sent, and its name fits into a close frame', async t => {
  const names = Object.values(closeCodes)
  t.equal(new Set(names).size, names.length, 'names are unique')
  for (const [code, name] of Object.entries(closeCodes)) {
    t.ok(isSendable(Number(code)), code)
    t.match(name, /^[a-z]+(?:_[a-z]+)*$/)
    t.ok(Buffer.byteLength(name) <= maxReasonBytes)
    t.equal(closeName(Number(code)), name)
  }
})

t.test('codes of the host have no name', async t => {
  for (const code of [3000, 4999, 1005, Number.NaN]) t.equal(closeName(code), '')
})

t.test('the range of a code determines the client\'s behaviour', async t => {
  const table: Record<ReturnType<typeof closeBehaviour>, number[]> = {
    stop: [1000, 1002, 1003, 1007, 1008, 1009, 1010, 4000, 4001, 4003, 4004, 4005, 4006, 4007, 4008, 4022, 4099],
    backoff: [4100, 4101, 4102, 4103, 4104, 4199],
    resume: [1001, 1004, 1005, 1006, 1011, 1012, 1013, 1014, 1015, 3000, 3999, 4200, 4201, 4202, 4203, 4299, 4400, 4999, 0, 999, 1016, 2999, 5000],
    renew: [4300, 4301, 4399]
  }
  for (const [behaviour, codes] of Object.entries(table)) {
    for (const code of codes) t.equal(closeBehaviour(code), behaviour, String(code))
  }
})

t.test('codes that an endpoint may not send are refused', async t => {
  for (const code of [1000, 1001, 1003, 1007, 1009, 1011, 1014, 3000, 4999]) t.ok(isSendable(code), String(code))
  for (const code of [0, 999, 1004, 1005, 1006, 1010, 1015, 2999, 5000, 4000.5, Number.NaN, Infinity, '4000' as never]) t.notOk(isSendable(code), String(code))
})
