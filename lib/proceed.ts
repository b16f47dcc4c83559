/** Goes on with a value at once, or when its promise settles: hooks and brokers may be asynchronous, and most of them are not. */
export function proceed<T, R = void> (value: T | PromiseLike<T>, next: (value: T) => R | Promise<R>): R | Promise<R> {
  if (typeof (value as PromiseLike<T> | undefined)?.then === 'function') return Promise.resolve(value).then(next)
  return next(value as T)
}
