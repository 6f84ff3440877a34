-- Argo CD's health of an AdapterTrainingJob, from the conditions Ready, Reconciling and Stalled (docs/gitops.md).
local health = { status = "Progressing", message = "the operator has not seen this specification yet" }
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end
for _, condition in ipairs(status.conditions) do
  if condition.type == "Ready" then
    health.message = condition.message
    if condition.reason == "Suspended" and condition.status == "True" then
      health.status = "Suspended"
      return health
    elseif condition.status == "True" then
      health.status = "Healthy"
    end
  elseif condition.type == "Stalled" and condition.status == "True" then
    health.status = "Degraded"
    health.message = condition.message
    return health
  end
end
return health
