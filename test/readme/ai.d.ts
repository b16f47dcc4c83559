// The types of the package `ai` (5 and 6) that docs/recipes/ai-sdk.md uses. The package itself is not a dependency.
export interface UIMessage { id: string, role: 'system' | 'user' | 'assistant', parts: { type: 'text', text: string }[] }

export type UIMessageChunk =
  | { type: 'text-start', id: string }
  | { type: 'text-delta', id: string, delta: string }
  | { type: 'text-end', id: string }

interface ChatRequestOptions { headers?: Record<string, string> | Headers, body?: object, metadata?: unknown }

export interface ChatTransport<Message extends UIMessage> {
  sendMessages: (options: {
    trigger: 'submit-message' | 'regenerate-message'
    chatId: string
    messageId: string | undefined
    messages: Message[]
    abortSignal: AbortSignal | undefined
  } & ChatRequestOptions) => Promise<ReadableStream<UIMessageChunk>>
  reconnectToStream: (options: { chatId: string } & ChatRequestOptions) => Promise<ReadableStream<UIMessageChunk> | null>
}
