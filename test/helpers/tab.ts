import { once } from 'node:events'
import type { Browser } from 'playwright-core'
import { WebSocket } from 'ws'
import { until } from './app.ts'
import { patience } from './browser.ts'

/**
 * A tab without Playwright, which keeps each of its own pages visible and active. It speaks the DevTools protocol, in a browser context of its own.
 */
export class Tab {
  readonly #socket: WebSocket
  readonly #close: () => Promise<unknown>
  #ids = 0

  /** @param port - of `--remote-debugging-port` */
  static async open (browser: Browser, port: number, url: string): Promise<Tab> {
    const root = await browser.newBrowserCDPSession()
    const { browserContextId } = await root.send('Target.createBrowserContext')
    const create = (url: string) => root.send('Target.createTarget', { url, browserContextId })
    const { targetId } = await create(url)
    const socket = new WebSocket(`ws://127.0.0.1:${port}/devtools/page/${targetId}`)
    await once(socket, 'open')
    const tab = new Tab(socket, () => root.send('Target.disposeBrowserContext', { browserContextId }), {
      hide: async () => { await create('about:blank') },
      show: () => root.send('Target.activateTarget', { targetId })
    })
    await tab.send('Page.enable')
    await tab.send('Network.enable')
    return tab
  }

  /** Opens another tab in front of this one. */
  readonly hide: () => Promise<unknown>
  /** Brings this tab to the front. */
  readonly show: () => Promise<unknown>

  constructor (socket: WebSocket, close: () => Promise<unknown>, { hide, show }: { hide: () => Promise<unknown>, show: () => Promise<unknown> }) {
    this.#socket = socket
    this.#close = close
    this.hide = hide
    this.show = show
  }

  /** Calls a method of the DevTools protocol. */
  async send (method: string, params: object = {}): Promise<any> {
    const id = ++this.#ids
    return new Promise((resolve, reject) => {
      const listener = (data: Buffer): void => {
        const answer = JSON.parse(data.toString())
        if (answer.id !== id) return
        this.#socket.off('message', listener)
        if (answer.error === undefined) resolve(answer.result)
        else reject(new Error(`${method}: ${answer.error.message}`))
      }
      this.#socket.on('message', listener)
      this.#socket.send(JSON.stringify({ id, method, params }))
    })
  }

  /** Evaluates an expression in the page; also if it is frozen. */
  async evaluate (expression: string): Promise<any> {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true })
    if (exceptionDetails !== undefined) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text)
    return result.value
  }

  /** Waits until an expression is true in the page. */
  async holds (expression: string): Promise<void> {
    await until(async () => await this.evaluate(expression).catch(() => false) === true, patience).catch(async () => {
      throw new Error(`this does not become true in the page: ${expression}; ${await this.evaluate('JSON.stringify(globalThis.report?.())')}`)
    })
  }

  /** Switches the network of the tab off, or on. */
  async offline (offline: boolean): Promise<void> {
    await this.send('Network.emulateNetworkConditions', { offline, latency: 0, downloadThroughput: -1, uploadThroughput: -1 })
  }

  /** Freezes a hidden tab, or continues it. */
  async freeze (isFrozen: boolean): Promise<void> {
    await this.send('Page.setWebLifecycleState', { state: isFrozen ? 'frozen' : 'active' })
  }

  async close (): Promise<void> {
    this.#socket.terminate()
    await this.#close()
  }
}
