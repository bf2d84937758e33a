-- SPDX-License-Identifier: Apache-2.0
-- wrk sends sixteen requests in one go on each connection.
init = function(args)
    local requests = {}
    for i = 1, 16 do
        requests[i] = wrk.format(nil)
    end
    request_text = table.concat(requests)
end

request = function()
    return request_text
end
