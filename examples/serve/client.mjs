// Classify texts with a server and Hugging Face's own client:  node client.mjs http://localhost:8080 "my card is lost"
import { InferenceClient } from "@huggingface/inference";

const [url, ...texts] = process.argv.slice(2);
const client = new InferenceClient(process.env.REAUGKD_API_KEY).endpoint(url);
for (const inputs of texts) {
  const labels = await client.textClassification({ inputs });
  console.log(JSON.stringify(labels));
}
