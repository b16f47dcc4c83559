/** The members of jsdom that the tests use. It has no types of its own. */
declare module 'jsdom' {
  export class JSDOM {
    constructor (html: string, options: { url: string, pretendToBeVisual: boolean })
    readonly window: any
    reconfigure (options: { url: string }): void
  }
}
