export function mergeTexts(language: string): Promise<Record<string, string>>;
