import t from 'tap'
import type { Receiver } from '../../lib/internals.ts'
import { inflateWhileReading, takeOver } from '../../lib/transport/ws/receiver.ts'
import { fakeMember } from '../helpers/fakes.ts'

/** A receiver that records its calls. */
class FakeReceiver {
  errored: Error | null = null
  writableEnded = false
  readonly written: string[] = []
  readonly inflated: string[] = []
  _write (chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.written.push(chunk.toString())
    done()
  }

  decompress (data: Buffer, done: () => void): void {
    this.inflated.push(data.toString())
    done()
  }

  end (): void { this.writableEnded = true }
  on (): void {}
}

t.test('chunks behind a violation are dropped', async t => {
  const receiver = new FakeReceiver()
  t.equal(takeOver(receiver as unknown as Receiver), undefined, 'the members of this receiver are unknown')
  let dones = 0
  const write = (text: string): void => { receiver._write(Buffer.from(text), 'utf8', () => { dones++ }) }
  write('sound')
  receiver.errored = new Error('not sound')
  write('behind')
  t.same(receiver.written, ['sound'])
  t.equal(dones, 2)
})

t.test('frames are inflated only while reading is not paused; those of an ended connection fail', async t => {
  const { session: { transport } } = fakeMember('a')
  const receiver = new FakeReceiver()
  inflateWhileReading(receiver as unknown as Receiver, transport)
  const outcomes: string[] = []
  const inflate = (text: string): void => { receiver.decompress(Buffer.from(text), (error?: Error) => { outcomes.push(`${text} ${error?.message ?? 'done'}`) }) }
  inflate('1')
  transport.pause()
  transport.resume()
  transport.pause()
  inflate('2')
  t.same(outcomes, ['1 done'])
  transport.resume()
  t.same(outcomes, ['1 done', '2 done'])
  transport.pause()
  inflate('3')
  receiver.end()
  receiver.end()
  transport.resume()
  inflate('4')
  transport.pause()
  inflate('5')
  t.same(receiver.inflated, ['1', '2', '4'])
  t.same(outcomes.slice(2), ['3 the connection has closed', '4 done', '5 the connection has closed'], 'each once')
})
