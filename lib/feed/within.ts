import { FST_ROOMS_BROKER_SILENT } from '../errors.ts'

/** Settles as the broker's answer to a call does. @throws FST_ROOMS_BROKER_SILENT after so many milliseconds */
export function within<T> (answer: Promise<T>, milliseconds: number, call: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => { reject(new FST_ROOMS_BROKER_SILENT(call, milliseconds)) }, milliseconds)
    Promise.resolve(answer).then(resolve, reject).finally(() => { clearTimeout(timer) })
  })
}
