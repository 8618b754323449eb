// Lets transformers.js generate from every variant of a repo of a hub, and prints what it says as JSON.
//
//     node transformers_js.mjs HUB REPO CACHE CHECKS
//
// CACHE is an empty folder, CHECKS is JSON, {variant: {prompt, tokens}}.
import { AutoModelForCausalLM, AutoTokenizer, env } from '@huggingface/transformers';

const [hub, repo, cache, checks] = process.argv.slice(2);
env.allowLocalModels = false;
env.cacheDir = cache;
env.remoteHost = hub;
const said = {};
const tokenizer = await AutoTokenizer.from_pretrained(repo);
for (const [dtype, { prompt, tokens }] of Object.entries(JSON.parse(checks))) {
  const model = await AutoModelForCausalLM.from_pretrained(repo, { dtype, device: 'cpu' });
  const sequence = await model.generate({
    ...tokenizer(prompt),
    max_new_tokens: tokens,
    min_new_tokens: tokens,
    do_sample: false,
  });
  said[dtype] = tokenizer.batch_decode(sequence, { skip_special_tokens: true })[0];
  await model.dispose();
}
console.log(JSON.stringify(said));
